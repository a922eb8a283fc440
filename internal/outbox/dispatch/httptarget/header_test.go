package httptarget

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfiguredHeadersCannotInjectOrOverride(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"Idempotency-Key": "a", "idempotency-key": "a", "X-Idempotency-Key": "a",
		"pawl-fence": "a", "Pawl-Anything": "a", "traceparent": "a", "Content-Type": "a",
		"webhook-signature": "a", "Webhook-Id": "a",
		"Content-Length": "5", "Transfer-Encoding": "chunked", "Connection": "close", "Host": "a", "TE": "a",
		"Trailer": "a", "Upgrade": "a", "Expect": "100-continue", "Proxy-Authorization": "a", "Keep-Alive": "a",
		"": "a", "A B": "a", "A:": "a", "A\r\nB": "a", "Ä": "a", "A\x00": "a",
		"X-Break": "a\r\nPawl-Fence: 99", "X-Feed": "a\nb", "X-Return": "a\rb", "X-Null": "a\x00b", "X-Delete": "a\x7f", "X-Space": " a", "X-Tab": "a\t",
	} {
		_, err := checkHeaders(map[string]string{name: value})
		if err == nil {
			t.Errorf("%q: %q is accepted", name, value)
		} else if value == "a\r\nPawl-Fence: 99" && strings.Contains(err.Error(), "99") {
			t.Errorf("the value is quoted: %v", err)
		}
	}
	if _, err := checkHeaders(map[string]string{"x-a": "1", "X-A": "2"}); err == nil {
		t.Error("a header is given twice")
	}
	got, err := checkHeaders(map[string]string{"authorization": "Bearer a.b-c", "X-Tenant": "ä\t1", "X-Empty": ""})
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Authorization": {"Bearer a.b-c"}, "X-Tenant": {"ä\t1"}, "X-Empty": {""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A token lies in a file and is replaced while calls are made. Half-written, empty or gone, the last
// good one goes on being sent.
func TestHeaderFromFileFollowsTheFile(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "Bearer one\n")
	var told []error
	target := open(t, r.URL, func(c *Config) {
		c.Headers = map[string]string{"X-Tenant": "1"}
		c.HeaderFiles = map[string]string{"authorization": path}
		c.Hooks.Secret = func(_ string, err error) { told = append(told, err) }
	})
	target.fileHeaders.period = 0
	send(t, target, call(nil))
	for _, bad := range []string{"", " \n", "Bearer\r\nPawl-Fence: 99", strings.Repeat("a", headerFileMax+1)} {
		write(t, path, bad)
		send(t, target, call(nil))
	}
	write(t, path, "Bearer two")
	send(t, target, call(nil))
	calls := r.seen()
	for i, got := range calls {
		want := "Bearer one"
		if i == len(calls)-1 {
			want = "Bearer two"
		}
		if got.header.Get("Authorization") != want || got.header.Get("X-Tenant") != "1" || got.header.Get("Pawl-Fence") != "7" {
			t.Errorf("call %d has Authorization %q, want %q", i, got.header.Get("Authorization"), want)
		}
	}
	if len(told) != 5 || told[0] == nil || told[4] != nil {
		t.Errorf("the hook was told %v, want four reasons and the change", told)
	}
}

func TestHeaderFilesAreCheckedAtTheStart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "hunter2\x00")
	good := filepath.Join(t.TempDir(), "token")
	write(t, good, "hunter2")
	for want, files := range map[string]map[string]string{
		"no such file":             {"Authorization": path + ".gone"},
		"holds 8 bytes":            {"Authorization": path},
		"Pawl-Fence is not yours":  {"pawl-fence": good},
		"no header name may have":  {"A B": good},
		"X-Tenant is given twice":  {"x-tenant": good},
		"X-Twin is given twice":    {"X-Twin": good, "x-twin": good},
		"Content-Length is not yo": {"Content-Length": good},
	} {
		_, err := New(Config{URL: "https://pay.example", Concurrency: 1, Headers: map[string]string{"X-Tenant": "1"}, HeaderFiles: files})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: error %v, want %s", files, err, want)
		}
	}
}
