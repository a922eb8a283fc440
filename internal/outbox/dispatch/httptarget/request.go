package httptarget

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// request is a call as it stands on the wire (RFC 9112).
type request struct {
	head []byte // and the body, where that is small
	body []byte // where it's large
}

// preamble is what the heads of all calls begin with. The URL and the headers have been checked.
func preamble(where *url.URL, headers http.Header, files *fileHeaders) []byte {
	host := strings.TrimSuffix(where.Host, ":")
	if zone, end := strings.IndexByte(host, '%'), strings.IndexByte(host, ']'); zone >= 0 && zone < end {
		host = host[:zone] + host[end:] // a zone means something on this machine only (RFC 6874 section 1)
	}
	text := []byte("POST " + where.RequestURI() + " HTTP/1.1\r\nHost: " + host + "\r\n")
	if headers[headerAgent] == nil && (files == nil || !slices.Contains(files.names, headerAgent)) {
		text = append(text, headerAgent+": "+agent+"\r\n"...)
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		text = append(text, name+": "+headers[name][0]+"\r\n"...)
	}
	return text
}

// request writes a call into b, or into more space where that's too little. An error says that no
// header can carry what the intent asks for, at no attempt. Every value is a number, made of our own
// letters, or has been checked: none can end its line.
func (t *Target) request(b []byte, call *outbox.Call, now time.Time) (request, error) {
	intent := &call.Intent
	if !validValue(intent.ContentType) {
		return request{}, errors.New("the effect's content type has a control character, or a space at an end: no header can carry it")
	}
	b = append(b[:0], t.preamble...)
	if t.fileHeaders != nil {
		b = t.fileHeaders.write(b, now)
	}
	b = append(b, headerKey+": "...)
	b = intent.ID.AppendText(b)
	b = append(b, "\r\n"+headerAttempt+": "...)
	b = strconv.AppendInt(b, int64(call.Attempt), 10)
	b = append(b, "\r\n"+headerFence+": "...)
	b = strconv.AppendInt(b, call.Fence, 10)
	b = append(b, "\r\n"+headerOrder+": "...)
	b = strconv.AppendInt(b, int64(intent.Lane), 10)
	b = append(b, ':')
	b = strconv.AppendInt(b, intent.Offset, 10)
	if intent.ContentType != "" {
		b = append(b, "\r\n"+headerContentType+": "...)
		b = append(b, intent.ContentType...)
	}
	if validTrace(intent.Trace) {
		b = append(b, "\r\n"+headerTrace+": "...)
		b = append(b, intent.Trace...)
		if intent.TraceState != "" && validValue(intent.TraceState) {
			b = append(b, "\r\n"+headerState+": "...)
			b = append(b, intent.TraceState...)
		}
	}
	if t.secrets != nil {
		id, seconds := intent.ID.String(), strconv.FormatInt(now.Unix(), 10)
		b = append(b, "\r\n"+headerHookID+": "+id+"\r\n"+headerHookTime+": "+seconds+"\r\n"+headerHookSign+": "...)
		b = append(b, t.secrets.sign(now, id, seconds, intent.Body)...)
	}
	if !repeatable(call) {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(intent.Body)), 10)
	b = append(b, "\r\n\r\n"...)
	if len(intent.Body) > inlineMax {
		return request{head: b, body: intent.Body}, nil
	}
	return request{head: append(b, intent.Body...)}, nil
}

// repeatable tells the calls that may be sent twice: of one class, and nothing else is ever risked.
func repeatable(call *outbox.Call) bool { return call.Intent.Class == message.AtLeastOnce }
