package httptarget

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Names of the headers that Pawl writes, in canonical form.
const (
	headerKey         = "Idempotency-Key"
	headerAttempt     = "Pawl-Attempt"
	headerFence       = "Pawl-Fence"
	headerOrder       = "Pawl-Order"
	headerTrace       = "Traceparent"
	headerState       = "Tracestate"
	headerContentType = "Content-Type"
	headerAgent       = "User-Agent"
	headerHookID      = "Webhook-Id"
	headerHookTime    = "Webhook-Timestamp"
	headerHookSign    = "Webhook-Signature"
)

// agent is sent unless a configured header says otherwise.
const agent = "pawl"

// reservedPrefixes and reservedNames can't be configured: Pawl writes them, or they belong to one
// connection and would let a setting change where a message ends. X-Idempotency-Key is among them
// because proxies and receivers may take it for the key.
var (
	reservedPrefixes = []string{"Pawl-", "Webhook-", "Proxy-"}
	reservedNames    = []string{
		headerKey, "X-Idempotency-Key", headerTrace, headerState, headerContentType,
		"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Expect", "Host", "Http2-Settings",
		"Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	}
)

// checkHeaders returns the headers by their canonical names. Errors name headers, never values.
func checkHeaders(conf map[string]string) (http.Header, error) {
	headers := make(http.Header, len(conf))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		canonical, err := CheckHeader(name, conf[name])
		switch {
		case err != nil:
			errs = append(errs, err)
		case headers[canonical] != nil:
			errs = append(errs, fmt.Errorf("header %s is given twice, in different spellings", canonical))
		default:
			headers[canonical] = []string{conf[name]}
		}
	}
	return headers, errors.Join(errs...)
}

// CheckHeader tells what is wrong with a configured header, and gives its name in canonical form. The
// error names it and doesn't quote the value.
func CheckHeader(name, value string) (canonical string, _ error) {
	canonical = http.CanonicalHeaderKey(name)
	switch {
	case !validName(name):
		return "", fmt.Errorf("header %q: the name has a character that no header name may have", name)
	case slices.Contains(reservedNames, canonical) || slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(canonical, p) }):
		return "", fmt.Errorf("header %s is not yours to set: remove it", canonical)
	case !validValue(value):
		return "", fmt.Errorf("header %s: the value has a control character, or a space at an end", canonical)
	}
	return canonical, nil
}

// fileHeaders are headers whose values are what files hold.
type fileHeaders struct {
	*files

	names []string // canonical, one for each file
}

// openHeaders reads every file once. plain are the headers with values of their own.
func openHeaders(conf map[string]string, plain http.Header, changed func(string, error)) (*fileHeaders, error) {
	h := &fileHeaders{}
	var paths []string
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		canonical, err := CheckHeader(name, "")
		switch {
		case err != nil:
			errs = append(errs, err)
		case plain[canonical] != nil || slices.Contains(h.names, canonical):
			errs = append(errs, fmt.Errorf("header %s is given twice", canonical))
		default:
			h.names, paths = append(h.names, canonical), append(paths, conf[name])
		}
	}
	opened, err := openFiles(paths, readHeader, changed)
	h.files = opened
	return h, errors.Join(append(errs, err)...)
}

// write appends the headers to a request's head.
func (h *fileHeaders) write(head []byte, now time.Time) []byte {
	for i, value := range h.appendTo(make([][]byte, 0, len(h.names)), now) {
		head = append(append(append(append(head, h.names[i]...), ": "...), value...), "\r\n"...)
	}
	return head
}

const headerFileMax = 8 << 10 // more than most receivers take for all headers

// readHeader takes the space at both ends for the editor's. It never quotes what it read.
func readHeader(path string) ([]byte, error) {
	text, err := readFile(path, headerFileMax)
	if err != nil {
		return nil, err
	}
	value := bytes.TrimSpace(text)
	if len(value) == 0 || len(text) > headerFileMax || !validValue(string(value)) {
		return nil, fmt.Errorf("read secret: %s holds %d bytes, want a header's value of one line and at most %d bytes", path, len(text), headerFileMax)
	}
	return value, nil
}

// validName tells a token of RFC 9110 section 5.6.2.
func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// validValue tells a field value of RFC 9110 section 5.5: no line break, so no second header.
func validValue(value string) bool {
	if strings.Trim(value, " \t") != value {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validTrace tells a traceparent of W3C Trace Context: version, trace id, parent id and flags in lower
// case hex; later versions may add more after a dash. The input's sender wrote it, so it's not trusted.
func validTrace(trace string) bool {
	const size = 55 // of version 00
	if len(trace) < size || len(trace) > size && (trace[size] != '-' || trace[:2] == "00") || trace[:2] == "ff" {
		return false
	}
	for i := range size {
		if i == 2 || i == 35 || i == 52 {
			if trace[i] != '-' {
				return false
			}
		} else if c := trace[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return validValue(trace)
}
