package testkit

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	browserPatience = 2 * time.Minute // for one answer of the browser; a slow machine takes many seconds to start one
	browserEnd      = 10 * time.Second
)

var errNoBrowser = errors.New("no Chromium found (chromium, chromium-browser, google-chrome): run `make setup`, or install the package chromium")

// Browser is one page in a headless Chromium of its own, driven over a pipe by the DevTools protocol. It notes
// everything that the page's console, its exceptions and its content security policy complain of.
type Browser struct {
	tb      testing.TB
	session string
	send    *os.File

	mu         sync.Mutex
	last       int
	waiting    map[int]chan reply
	complaints []string
	err        error // why nothing is answered any more
}

// reply is what the browser sends: an answer, which has an ID, or an event, which has a Method.
type reply struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func findBrowser() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", unavailable{errNoBrowser}
}

// OpenBrowser starts a browser with an empty page. It is closed when the test ends.
func OpenBrowser(tb testing.TB) *Browser {
	tb.Helper()
	program, err := findBrowser()
	require(tb, "a browser", err)
	b := &Browser{tb: tb, waiting: map[int]chan reply{}}
	if err := b.start(program); err != nil {
		tb.Fatal(err)
	}
	var target struct {
		TargetID string `json:"targetId"`
	}
	b.ask("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.ask("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Audits"} {
		b.ask(domain+".enable", nil, nil)
	}
	return b
}

func (b *Browser) start(program string) error {
	theirs, send, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("open browser: %w", err)
	}
	receive, told, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("open browser: %w", errors.Join(err, theirs.Close(), send.Close()))
	}
	b.send = send
	log, err := os.Create(filepath.Join(b.tb.TempDir(), "browser.log"))
	if err != nil {
		return fmt.Errorf("open browser: %w", err)
	}
	profile := b.tb.TempDir()
	// Without a sandbox of its own: it shows pages of ours only, and root has no other way.
	cmd := exec.CommandContext(context.WithoutCancel(b.tb.Context()), program, //nolint:gosec // a browser, arguments of ours
		"--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
		"--force-color-profile=srgb", "--lang=en-US", "--user-data-dir="+profile)
	cmd.ExtraFiles = []*os.File{theirs, told} // 3 and 4, as the flag wants
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "TZ=UTC", "HOME="+profile)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("open browser: %w", err)
	}
	if err := errors.Join(theirs.Close(), told.Close()); err != nil {
		return fmt.Errorf("open browser: %w", err)
	}
	gone, heard := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait() // however it ends: what matters is that it is gone
	}()
	go func() {
		defer close(heard)
		b.listen(receive)
	}()
	b.tb.Cleanup(func() {
		select {
		case <-gone:
			text, _ := os.ReadFile(log.Name()) // what is there
			b.tb.Logf("the browser has ended by itself: %s", text)
		default:
		}
		if b.tb.Failed() {
			for _, complaint := range b.Complaints() {
				b.tb.Logf("the browser complains: %s", complaint)
			}
		}
		_ = b.send.Close() // the end of the pipe is the order to end
		select {
		case <-gone:
		case <-time.After(browserEnd):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its helpers; mostly there are none left
		<-gone
		<-heard
		_ = receive.Close()
		_ = log.Close()
	})
	return nil
}

// listen hands answers to who waits for them and notes complaints, until the browser is gone.
func (b *Browser) listen(from *os.File) {
	reader := bufio.NewReader(from)
	for {
		text, err := reader.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			b.err = fmt.Errorf("the browser is gone: %w", err)
			for id, waiting := range b.waiting {
				delete(b.waiting, id)
				close(waiting)
			}
			b.mu.Unlock()
			return
		}
		var message reply
		if err := json.Unmarshal(text[:len(text)-1], &message); err != nil {
			message = reply{Method: "unreadable", Params: text[:len(text)-1]}
		}
		b.mu.Lock()
		if waiting, found := b.waiting[message.ID]; found {
			delete(b.waiting, message.ID)
			waiting <- message
		} else if text := complaint(message); text != "" {
			b.complaints = append(b.complaints, text)
		}
		b.mu.Unlock()
	}
}

// complaint gives the text of an event that a sound page does not cause.
func complaint(event reply) string {
	var told struct {
		Type  string `json:"type"`
		Entry struct {
			Level string `json:"level"`
		} `json:"entry"`
		Issue struct {
			Code string `json:"code"`
		} `json:"issue"`
	}
	_ = json.Unmarshal(event.Params, &told) // what it has none of stays empty
	switch {
	case event.Method == "unreadable", event.Method == "Runtime.exceptionThrown",
		event.Method == "Runtime.consoleAPICalled" && slices.Contains([]string{"error", "warning", "assert"}, told.Type),
		event.Method == "Log.entryAdded" && (told.Entry.Level == "error" || told.Entry.Level == "warning"),
		event.Method == "Audits.issueAdded":
		return event.Method + " " + string(event.Params)
	}
	return ""
}

// Complaints returns what has been complained of since it was last asked.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	complaints := b.complaints
	b.complaints = nil
	return complaints
}

// ask calls a method of the protocol and waits for its answer.
func (b *Browser) ask(method string, params map[string]any, into any) {
	b.tb.Helper()
	if params == nil {
		params = map[string]any{}
	}
	answered := make(chan reply, 1)
	b.mu.Lock()
	b.last++
	request := map[string]any{"id": b.last, "method": method, "params": params}
	if b.session != "" {
		request["sessionId"] = b.session
	}
	err := b.err
	b.waiting[b.last] = answered
	b.mu.Unlock()
	text, marshalErr := json.Marshal(request)
	if err = errors.Join(err, marshalErr); err == nil {
		_, err = b.send.Write(append(text, 0))
	}
	if err != nil {
		b.tb.Fatalf("ask the browser for %s: %v", method, err)
	}
	select {
	case answer, open := <-answered:
		switch {
		case !open:
			b.tb.Fatalf("ask the browser for %s: it is gone", method)
		case answer.Error != nil:
			b.tb.Fatalf("ask the browser for %s: %s", method, answer.Error.Message)
		case into != nil:
			if err := json.Unmarshal(answer.Result, into); err != nil {
				b.tb.Fatalf("ask the browser for %s: %v in %s", method, err, answer.Result)
			}
		}
	case <-time.After(browserPatience):
		b.tb.Fatalf("ask the browser for %s: no answer within %s", method, browserPatience)
	}
}

// Go opens an address and waits until the document and what it asks for is there.
func (b *Browser) Go(address string) {
	b.tb.Helper()
	b.ask("Page.navigate", map[string]any{"url": address}, nil)
	b.Await(fmt.Sprintf("location.href.startsWith(%q) && document.readyState === 'complete'", address))
}

// Evaluate runs a JavaScript expression in the page and reads its value; a promise is awaited.
func (b *Browser) Evaluate(expression string, into any) {
	b.tb.Helper()
	var answer struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	b.ask("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &answer)
	if answer.Exception != nil {
		b.tb.Fatalf("%s: %s", expression, answer.Exception.Exception.Description)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(answer.Result.Value, into); err != nil {
		b.tb.Fatalf("%s is %s: %v", expression, answer.Result.Value, err)
	}
}

// Await waits until an expression is true. While it throws, for instance because an element is not there, it is not.
func (b *Browser) Await(expression string) {
	b.tb.Helper()
	WaitFor(b.tb, browserPatience, expression, func() bool {
		var is bool
		b.Evaluate("(() => { try { return !!("+expression+"); } catch { return false; } })()", &is)
		return is
	})
}

// Click clicks where the middle of an element is shown, so that what covers it gets the click.
func (b *Browser) Click(selector string) {
	b.tb.Helper()
	var at struct{ X, Y float64 }
	b.Evaluate(fmt.Sprintf(`(() => {
		const e = document.querySelector(%q);
		e.scrollIntoView({block: "center"});
		const r = e.getBoundingClientRect();
		return {X: r.x + r.width / 2, Y: r.y + r.height / 2};
	})()`, selector), &at)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.ask("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// Type gives a text to the element that has the focus.
func (b *Browser) Type(text string) {
	b.tb.Helper()
	b.ask("Input.insertText", map[string]any{"text": text}, nil)
}

// Press presses a key: Tab, Enter or Escape.
func (b *Browser) Press(key string) {
	b.tb.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27}
	event := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
	if key == "Enter" {
		event["text"] = "\r"
	}
	b.ask("Input.dispatchKeyEvent", event, nil)
	event["type"] = "keyUp"
	delete(event, "text")
	b.ask("Input.dispatchKeyEvent", event, nil)
}

// Show sets the width of the page and whether it is dark. The height is the document's.
func (b *Browser) Show(width int, dark bool) {
	b.tb.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.ask("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	height := 800
	for range 2 { // the height follows the width
		b.ask("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
		b.Evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))", nil)
		b.Evaluate("Math.max(800, document.documentElement.scrollHeight)", &height)
	}
}

// Screenshot keeps a picture of the page among the artefacts of the test.
func (b *Browser) Screenshot(name string) {
	b.tb.Helper()
	var picture struct {
		Data string `json:"data"`
	}
	b.ask("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &picture)
	data, err := base64.StdEncoding.DecodeString(picture.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.tb.ArtifactDir(), name+".png"), data, 0o600)
	}
	if err != nil {
		b.tb.Fatal(err)
	}
}

// Accessible is an element as assistive technology is told of it.
type Accessible struct {
	Role, Name string
}

// Accessibles lists them in the order of the document.
func (b *Browser) Accessibles() []Accessible {
	b.tb.Helper()
	var tree struct {
		Nodes []struct {
			Ignored bool `json:"ignored"`
			Role    struct {
				Value string `json:"value"`
			} `json:"role"`
			Name struct {
				Value string `json:"value"`
			} `json:"name"`
		} `json:"nodes"`
	}
	b.ask("Accessibility.getFullAXTree", nil, &tree)
	var all []Accessible
	for _, node := range tree.Nodes {
		if !node.Ignored {
			all = append(all, Accessible{node.Role.Value, strings.TrimSpace(node.Name.Value)})
		}
	}
	return all
}
