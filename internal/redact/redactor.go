// Package redact takes secrets out of text that leaves a process: logs, and the archive of an incident.
package redact

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	hidden = "***"

	// secretMin is the least length of a text that is looked for: anything shorter is everywhere.
	secretMin = 4
	// wordMax: a text up to this long is hidden where it stands as a word, so that a password such as "1234" does
	// not eat parts of numbers.
	wordMax = 8
	// lineMin is the least length of one line of a secret with several that is looked for by itself.
	lineMin = 16
)

// Redactor hides secrets. It is the second line of defence: nothing that is logged or goes into an archive is meant to hold one.
// It looks for the texts it was given, in the forms in which they get into logs and JSON, and for what looks like a
// credential whatever its text.
type Redactor struct {
	known   *regexp.Regexp // nil where there is nothing to look for
	looks   *regexp.Regexp
	Ignored int // texts that are too short to be looked for
}

// looksForm: the user part of a URL, an Authorization header, and values by the names that people give to secrets.
// What it keeps is in its groups.
var looksForm = regexp.MustCompile(`(://)[^/\s@"'\\]+@` +
	`|(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}` +
	`|(?i)\b((?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token|token)=)[^\s&"'\\,;]+`)

// New hides these texts.
func New(secrets []string) *Redactor {
	r := &Redactor{looks: looksForm}
	seen := map[string]bool{}
	for _, secret := range secrets {
		for _, text := range pieces(secret) {
			if utf8.RuneCountInString(text) < secretMin {
				r.Ignored++
				continue
			}
			for _, form := range forms(text) {
				seen[form] = true
			}
		}
	}
	patterns := slices.Collect(maps.Keys(seen))
	// The longest first, so that nothing is left of a text that holds another.
	slices.SortFunc(patterns, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	for i, text := range patterns {
		patterns[i] = pattern(text)
	}
	if len(patterns) > 0 {
		r.known = regexp.MustCompile(strings.Join(patterns, "|"))
	}
	return r
}

// pieces gives a secret, and each of its lines where it has several, as keys in PEM have.
func pieces(secret string) []string {
	secret = strings.TrimSpace(secret)
	if secret == "" {
		return nil
	}
	texts := []string{secret}
	if strings.ContainsAny(secret, "\r\n") {
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= lineMin && !strings.HasPrefix(line, "-----") {
				texts = append(texts, line)
			}
		}
	}
	return texts
}

// forms gives a text as it is, as JSON has it, as URLs have it, and in base64.
func forms(text string) []string {
	bare, html := jsonForm(text, false), jsonForm(text, true) // encoders escape <, > and & or leave them
	return []string{
		text, url.QueryEscape(text), url.PathEscape(text),
		base64.StdEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text)),
		bare, html, jsonForm(bare, false), jsonForm(html, true), // twice: a line of a log within JSON
	}
}

func jsonForm(text string, html bool) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(html)
	if err := encoder.Encode(text); err != nil {
		panic(err) // a string always encodes
	}
	quoted := strings.TrimSuffix(out.String(), "\n")
	return quoted[1 : len(quoted)-1]
}

func pattern(text string) string {
	quoted := regexp.QuoteMeta(text)
	if utf8.RuneCountInString(text) > wordMax {
		return quoted
	}
	first, _ := utf8.DecodeRuneInString(text)
	last, _ := utf8.DecodeLastRuneInString(text)
	if isWord(first) {
		quoted = `\b` + quoted
	}
	if isWord(last) {
		quoted += `\b`
	}
	return quoted
}

func isWord(r rune) bool {
	return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_')
}

// Bytes returns a text with *** in the place of secrets.
func (r *Redactor) Bytes(text []byte) []byte {
	if text == nil {
		return nil
	}
	if r.known != nil {
		text = r.known.ReplaceAllLiteral(text, []byte(hidden))
	}
	return r.looks.ReplaceAllFunc(text, func(match []byte) []byte {
		if match[0] == ':' {
			return []byte("://" + hidden + "@")
		}
		kept := r.looks.FindSubmatch(match)
		for _, group := range kept[1:] {
			if len(group) > 0 {
				return append(slices.Clone(group), hidden...)
			}
		}
		return []byte(hidden)
	})
}

// String is Bytes for a string.
func (r *Redactor) String(text string) string {
	if text == "" {
		return ""
	}
	return string(r.Bytes([]byte(text)))
}
