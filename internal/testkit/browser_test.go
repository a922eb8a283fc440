//go:build integration

package testkit

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// What a page does wrong is noted: nobody would see it in a headless browser.
func TestBrowserNotesWhatAPageDoesWrong(t *testing.T) {
	t.Parallel()
	for wrong, body := range map[string]string{
		"console.error":         `<script nonce="n">console.error("said")</script>`,
		"an exception":          `<script nonce="n">nowhere()</script>`,
		"a rejected promise":    `<script nonce="n">Promise.reject(new Error("no"))</script>`,
		"a style not allowed":   `<p style="color: red">red</p>`,
		"a script not allowed":  `<script>1</script>`,
		"a file that is absent": `<img src="/absent.png">`,
	} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			b, url := browse(t, body)
			b.Go(url)
			WaitFor(t, browserPatience, "a complaint of "+wrong, func() bool { return len(b.Complaints()) > 0 })
		})
	}
}

func browse(t *testing.T, body string) (b *Browser, url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-n'; img-src 'self' data:")
		_, _ = w.Write([]byte(`<!doctype html><html lang="en"><title>t</title><link rel="icon" href="data:,">` + body))
	}))
	t.Cleanup(server.Close)
	return OpenBrowser(t), server.URL
}

// A page that does nothing wrong is told of as it is.
func TestBrowserShowsAPageAsItIs(t *testing.T) {
	t.Parallel()
	b, url := browse(t, `<main><label>Word <input id="word"></label><button id="go">Go</button></main>
<script nonce="n">document.querySelector("#go").addEventListener("click", () => document.title = document.querySelector("#word").value)</script>`)
	b.Go(url)
	b.Press("Tab")
	b.Type("typed")
	b.Click("#go")
	b.Await(`document.title === "typed"`)
	var dark bool
	b.Show(360, true)
	if b.Evaluate(`innerWidth === 360 && matchMedia("(prefers-color-scheme: dark)").matches`, &dark); !dark {
		t.Error("the page is not shown dark and 360 px wide")
	}
	if !slices.Contains(b.Accessibles(), Accessible{"button", "Go"}) {
		t.Errorf("no button Go in %v", b.Accessibles())
	}
	for _, complaint := range b.Complaints() {
		t.Errorf("the browser complains: %s", complaint)
	}
}
