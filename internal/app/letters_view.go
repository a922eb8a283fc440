package app

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pawl/internal/deadletter"
)

// What follows is how dead letters look from outside: to the commands with -o json, and to the operations HTTP.

// ListedLetter is a dead letter without its contents.
type ListedLetter struct {
	Letter     string    `json:"letter"` // partition/offset in the dead-letter topic
	State      string    `json:"state"`
	Time       time.Time `json:"time"` // of the refused record
	Source     string    `json:"source,omitempty"`
	Handler    string    `json:"handler,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Error      string    `json:"error,omitempty"`
	Redrives   int       `json:"redrives"`
	KeyBytes   int       `json:"key_bytes"` // -1 stands for null
	ValueBytes int       `json:"value_bytes"`
}

// ListLetter shows a dead letter as one of many.
func ListLetter(l *deadletter.Letter) ListedLetter {
	listed := ListedLetter{
		Letter: l.Position().String(), State: string(l.State), Time: l.Timestamp.UTC(),
		Handler: l.Handler, Reason: l.Reason, Error: l.Error, Redrives: l.Redrives,
		KeyBytes: bytesOrNull(l.Key), ValueBytes: bytesOrNull(l.Value),
	}
	if l.Unreadable != nil {
		listed.Error = l.Unreadable.Error()
	} else {
		listed.Source = l.Source.String()
	}
	return listed
}

func bytesOrNull(b []byte) int {
	if b == nil {
		return -1
	}
	return len(b)
}

// The limits of what a look shows of one dead letter.
const (
	lookedKeyBytes    = 256
	lookedHeaders     = 100
	lookedTextBytes   = 16 << 10
	lookedBinaryBytes = 2 << 10
	lookedJSONDepth   = 32 // deeper JSON is shown as it is: indented, it would grow with the square of its depth
)

// LookedLetter is a dead letter as the status page shows it: for reading, while `dlq show -o json` is exact.
type LookedLetter struct {
	ListedLetter
	ID          string          `json:"id,omitempty"`
	Key         string          `json:"key"` // quoted, or in hexadecimal; cut
	Headers     []LookedHeader  `json:"headers"`
	MoreHeaders int             `json:"more_headers,omitempty"` // that are not shown
	Contents    *LookedContents `json:"contents,omitempty"`     // absent unless they were asked for and are allowed
}

// LookedHeader is a header of the refused record.
type LookedHeader struct {
	Key   string `json:"key"`
	Bytes int    `json:"bytes"`           // -1 stands for null
	Value string `json:"value,omitempty"` // as the key is, and only with the contents
}

// LookedContents is the value of the refused record.
type LookedContents struct {
	Form string `json:"form"` // null, json, text or hex
	Text string `json:"text"`
	Cut  int    `json:"cut,omitempty"` // bytes of the value that are not shown
}

// LookAtLetter shows one dead letter: of value and headers the sizes, unless contents are wanted.
func LookAtLetter(l *deadletter.Letter, contents bool) LookedLetter {
	looked := LookedLetter{ListedLetter: ListLetter(l), ID: l.ID, Key: PreviewBytes(l.Key, lookedKeyBytes), Headers: []LookedHeader{}}
	for i, h := range l.Headers {
		if i == lookedHeaders {
			looked.MoreHeaders = len(l.Headers) - i
			break
		}
		header := LookedHeader{Key: h.Key, Bytes: bytesOrNull(h.Value)}
		if contents {
			header.Value = PreviewBytes(h.Value, lookedKeyBytes)
		}
		looked.Headers = append(looked.Headers, header)
	}
	if contents {
		looked.Contents = lookInto(l.Value)
	}
	return looked
}

// lookInto gives a value for reading: JSON with a member a line, other text as it is, and anything else in hexadecimal.
func lookInto(value []byte) *LookedContents {
	if value == nil {
		return &LookedContents{Form: "null"}
	}
	if text := string(value); IsText(text) {
		if len(value) <= lookedTextBytes && shallowJSON(value) {
			var lines bytes.Buffer
			if err := json.Indent(&lines, value, "", "  "); err == nil {
				return &LookedContents{Form: "json", Text: lines.String()}
			}
		}
		shown := strings.ToValidUTF8(text[:min(len(text), lookedTextBytes)], "") // the cut may go through a character
		return &LookedContents{Form: "text", Text: shown, Cut: len(text) - len(shown)}
	}
	shown := value[:min(len(value), lookedBinaryBytes)]
	return &LookedContents{Form: "hex", Text: hex.Dump(shown), Cut: len(value) - len(shown)}
}

// shallowJSON tells whether the value is JSON that may be indented.
func shallowJSON(value []byte) bool {
	if !json.Valid(value) {
		return false
	}
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++ // whatever it escapes
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest > 0 && deepest <= lookedJSONDepth
}

// PreviewBytes shows a key or a header on one line.
func PreviewBytes(b []byte, most int) string {
	if b == nil {
		return "null"
	}
	part := b[:min(most, len(b))]
	text := strconv.Quote(string(part))
	if !IsText(string(part)) {
		text = "0x" + hex.EncodeToString(part)
	}
	if len(part) < len(b) {
		text += fmt.Sprintf("... (%d bytes)", len(b))
	}
	return text
}

// IsText tells text that a terminal can show from anything else.
func IsText(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	return strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) < 0
}
