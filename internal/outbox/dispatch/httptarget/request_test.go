package httptarget

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// Whatever an intent and the configuration hold: either it is refused, or a strict server reads one
// request from it, with the headers that were meant and no other, and with the same body.
func TestHeadIsWhatWasMeantWhateverGoesIntoIt(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	dir := t.TempDir()
	// Text that would end a line or a head, if it got there, among text that is fine.
	fine := rapid.StringMatching(`[a-z]{1,9}-[a-z]{1,9}`)
	nasty := rapid.OneOf(fine, fine, fine, fine, fine,
		rapid.StringMatching(`[a-zA-Z0-9/=; .-]{0,20}`),
		rapid.StringOfN(rapid.SampledFrom([]rune("\r\n\t :aZ9\x00\x7f\"%,;?#/ä\u2028")), 0, 12, -1),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 12), func(b []byte) string { return string(b) }),
		rapid.Map(rapid.String(), func(s string) string { return s + "\r\nPawl-Fence: 99\r\n\r\nPOST / HTTP/1.1" }),
	)
	trace := rapid.OneOf(nasty, rapid.Map(nasty, func(s string) string {
		return "01-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01-" + s
	}))
	refused, sent := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		file := filepath.Join(dir, "value")
		if err := os.WriteFile(file, []byte(nasty.Draw(t, "file")), 0o600); err != nil {
			t.Fatal(err)
		}
		conf := Config{URL: r.URL + "/" + nasty.Draw(t, "path"), Concurrency: 1, AllowPrivate: true}
		if name := nasty.Draw(t, "name"); rapid.Bool().Draw(t, "with header") {
			conf.Headers = map[string]string{name: nasty.Draw(t, "value")}
		}
		if rapid.Bool().Draw(t, "with file") {
			conf.HeaderFiles = map[string]string{"X-File": file}
		}
		if rapid.Bool().Draw(t, "signed") {
			secret := filepath.Join(dir, "secret")
			if err := os.WriteFile(secret, []byte(encoded(keyOne)), 0o600); err != nil {
				t.Fatal(err)
			}
			conf.SecretFiles = []string{secret}
		}
		target, err := New(conf)
		if err != nil {
			refused++
			return
		}
		defer target.Close()
		it := outbox.Call{
			Attempt: rapid.Int().Draw(t, "attempt"), Fence: rapid.Int64().Draw(t, "fence"),
			Intent: outbox.Intent{
				Lane: rapid.Int32().Draw(t, "lane"), Offset: rapid.Int64().Draw(t, "offset"),
				ID:    message.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
				Class: message.Class(rapid.SampledFrom([]string{"at-least-once", "at-most-once", "\r\nX: y"}).Draw(t, "class")), ContentType: nasty.Draw(t, "content"),
				Trace: trace.Draw(t, "trace"), TraceState: nasty.Draw(t, "state"), BusinessKey: nasty.Draw(t, "key"), Endpoint: nasty.Draw(t, "endpoint"),
				Body: []byte(nasty.Draw(t, "body")),
			},
		}
		now := time.Now()
		q, err := target.request(nil, &it, now)
		before := len(r.seen())
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		answer := target.Send(ctx, it)
		calls := r.seen()[before:]
		if err != nil {
			refused++
			if answer.Err == nil || answer.Sent || len(calls) != 0 {
				t.Fatalf("the head is refused, yet: %+v", answer)
			}
			return
		}
		sent++
		if answer.Status != 200 || len(calls) != 1 {
			t.Fatalf("%d calls arrived: %+v\n%q", len(calls), answer, q.head)
		}
		in := bufio.NewReader(bytes.NewReader(q.head))
		parsed, err := http.ReadRequest(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, parsed.Body); err != nil || in.Buffered() != 0 {
			t.Fatalf("%d bytes come after the request (%v)", in.Buffered(), err)
		}
		want := http.Header{
			"User-Agent": {agent}, "Idempotency-Key": {it.Intent.ID.String()}, "Pawl-Attempt": {strconv.Itoa(it.Attempt)},
			"Pawl-Fence": {strconv.FormatInt(it.Fence, 10)}, "Pawl-Order": {strconv.Itoa(int(it.Intent.Lane)) + ":" + strconv.FormatInt(it.Intent.Offset, 10)},
			"Content-Length": {strconv.Itoa(len(it.Intent.Body))},
		}
		for name, value := range conf.Headers {
			want[http.CanonicalHeaderKey(name)] = []string{value}
		}
		if conf.HeaderFiles != nil {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want["X-File"] = []string{strings.TrimSpace(string(content))}
		}
		if it.Intent.ContentType != "" {
			want["Content-Type"] = []string{it.Intent.ContentType}
		}
		if validTrace(it.Intent.Trace) {
			want["Traceparent"] = []string{it.Intent.Trace}
			if it.Intent.TraceState != "" && validValue(it.Intent.TraceState) {
				want["Tracestate"] = []string{it.Intent.TraceState}
			}
		}
		if it.Intent.Class != message.AtLeastOnce {
			want["Connection"] = []string{"close"}
		}
		got := calls[0].header
		if conf.SecretFiles != nil {
			seconds := got.Get("webhook-timestamp")
			want["Webhook-Id"], want["Webhook-Timestamp"] = want["Idempotency-Key"], []string{seconds}
			want["Webhook-Signature"] = []string{signature(keyOne, it.Intent.ID.String(), seconds, it.Intent.Body)}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("headers (-want +got):\n%s", diff)
		}
		if !bytes.Equal(calls[0].body, it.Intent.Body) {
			t.Fatalf("body: %q, want %q", calls[0].body, it.Intent.Body)
		}
		if calls[0].method != http.MethodPost || !strings.HasPrefix(calls[0].uri, "/") || strings.ContainsAny(calls[0].uri, " \r\n") || calls[0].host != strings.TrimPrefix(r.URL, "http://") {
			t.Fatalf("%s %q to %q", calls[0].method, calls[0].uri, calls[0].host)
		}
	})
	t.Logf("%d refused, %d sent", refused, sent)
	if refused == 0 || sent == 0 {
		t.Errorf("%d refused, %d sent", refused, sent)
	}
}

func TestPreambleNamesTheHostAsDNSAndHTTPDo(t *testing.T) {
	t.Parallel()
	for url, want := range map[string][3]string{ // request target, Host, address to dial
		"http://pay.example":                         {"/", "pay.example", "pay.example:80"},
		"https://pay.example/":                       {"/", "pay.example", "pay.example:443"},
		"http://pay.example:/a":                      {"/a", "pay.example", "pay.example:80"},
		"https://Pay.example:8443/a%20b?c=d%2Fe&f":   {"/a%20b?c=d%2Fe&f", "Pay.example:8443", "Pay.example:8443"},
		"http://pay.example/a b/ä?":                  {"/a%20b/%C3%A4?", "pay.example", "pay.example:80"},
		"http://pay.example?q":                       {"/?q", "pay.example", "pay.example:80"},
		"http://[::1]:8080/":                         {"/", "[::1]:8080", "[::1]:8080"},
		"http://[fe80::1%25eth0]/":                   {"/", "[fe80::1]", "[fe80::1%eth0]:80"},
		"http://[fe80::1%25eth0]:81/":                {"/", "[fe80::1]:81", "[fe80::1%eth0]:81"},
		"http://[fe80::1%25e%2520\u00e4]:81/a?%25=]": {"/a?%25=]", "[fe80::1]:81", "[fe80::1%e%20\u00e4]:81"},
	} {
		target, err := New(Config{URL: url, Concurrency: 1, AllowPrivate: true})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if got := string(target.preamble); got != "POST "+want[0]+" HTTP/1.1\r\nHost: "+want[1]+"\r\nUser-Agent: pawl\r\n" {
			t.Errorf("%s: %q", url, got)
		}
		if target.pool.address != want[2] {
			t.Errorf("%s: dials %s", url, target.pool.address)
		}
	}
}
