//go:build integration

package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"pawl/internal/admin"
	"pawl/internal/testkit"
)

// serveBusy serves the page of a busy process at an address; port 0 takes a free one.
func serveBusy(t *testing.T, listen string, log io.Writer) (url string, end func()) {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(testToken), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, origins := load(t, LoadOptions{File: "../../deploy/config.example.yaml", Set: []string{"application=orders", "txn.lanes=3"}})
	process := newBusy()
	ok := func(context.Context) error { return nil }
	server, err := admin.Open(t.Context(), admin.Config{
		Listen: listen, TokenFile: token, Application: "orders", Instance: "orders-0", Version: map[string]string{"version": "1.4.2"},
		Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewJSONHandler(log, nil)),
		Ready: []admin.Check{
			{Name: "drain", Probe: ok},
			{Name: "preflight", Probe: ok},
			{Name: "ledger", Probe: ok},
			{Name: "group", Probe: func(context.Context) error { return errors.New("not every lane is in the consumer group yet") }},
		},
		Status: process.view, View: process.view, Settings: origins.Settings(conf),
		Pauses: process, DeadLetters: lettersAPI{},
		Effects: effectsAPI{&fakeStore{}}, Drain: func(context.Context, admin.Drain) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return "http://" + server.Addr().String(), end
}

// calm wants a page that has complained of nothing.
func calm(t *testing.T, b *testkit.Browser) {
	t.Helper()
	for _, complaint := range b.Complaints() {
		t.Errorf("the browser complains: %s", complaint)
	}
}

// live waits until there are rates.
const live = `document.querySelector("#connection").textContent === "Live" && document.querySelector("#flow-table tbody td.number").textContent !== "–"`

// openBusy opens the page of a busy process and waits until it is live.
func openBusy(t *testing.T, log io.Writer) (b *testkit.Browser, url string, end func()) {
	t.Helper()
	url, end = serveBusy(t, "127.0.0.1:0", log)
	b = testkit.OpenBrowser(t)
	b.Show(1440, false)
	b.Go(url)
	b.Await(live)
	return b, url, end
}

func textOf(b *testkit.Browser, selector string) (text string) {
	b.Evaluate(fmt.Sprintf("document.querySelector(%q).innerText", selector), &text)
	return text
}

// All of a process is on the page, as text and never as markup.
func TestPageShowsEverythingAsText(t *testing.T) {
	t.Parallel()
	b, _, _ := openBusy(t, io.Discard)
	b.Click("#config-details summary")
	for selector, parts := range map[string][]string{
		"#state":        {"Not ready"},
		"#about":        {"version 1.4.2", "up 3 h"},
		"#checks":       {"group failed: not every lane", "preflight ok"},
		"#pauses":       {"Stopped by operators, in all processes: 2", "input/orders/7 is paused", "bad data from upstream " + markup, "ann@10.0.0.7", "was to be over", "endpoint/mail is held", "Ends by itself at"},
		"#stats":        {"1,590", "Did not commit", "Readers held back", "12 s", "Partitions halted"},
		"#flow-table":   {"orders.effect-results", "transaction", "orders.dead-letter", "payments (calls)"},
		"#flow":         {"orders.priced", "/s", "breaker open", "paused in part", "endpoint, held"},
		"#partitions":   {"orders/3", "800 ms", "halted: the committed offset", markup, "77 held back upstream", "lag not known yet", "paused by input/orders/7"},
		"#lanes":        {"working", "opening, not in the group"},
		"#ended":        {"rebalance: partitions moved while it was open", "committed"},
		"#failed":       {"aborted", "unknown", "300 ms"},
		"#effects":      {"warehouse", "open", "5,310", "90 min", "17 of 64", "held by an operator"},
		"#dead":         {"bad_json", "no_price", "14"},
		"#config":       {"kafka.brokers", "config.example.yaml", "--set"},
		"#orders":       {"Token"},
		"#limits-title": {"can’t know"},
	} {
		text := textOf(b, selector)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %q: %q", selector, part, text)
			}
		}
	}
	var images int
	if b.Evaluate("document.images.length", &images); images != 0 {
		t.Error("a text has become markup")
	}
	// Rates are of seconds, whatever the machine's pace.
	var rate string
	b.Evaluate(`document.querySelector("#flow-table tbody td.number").textContent`, &rate)
	var number float64
	if _, err := fmt.Sscan(strings.ReplaceAll(rate, ",", ""), &number); err != nil || number <= 0 || number > 5*4215 {
		t.Errorf("the rate is %q", rate)
	}
	calm(t, b)
}

// contrasts gives every text that stands out too little from its ground, by the formula of WCAG 2.
const contrasts = `(() => {
	const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return {r: n[0], g: n[1], b: n[2], a: n[3] ?? 1}; };
	const light = (c) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(c.r) + 0.7152 * f(c.g) + 0.0722 * f(c.b); };
	const ground = (e) => { for (; e; e = e.parentElement) { if (e.namespaceURI.endsWith("svg")) continue; const c = parse(getComputedStyle(e).backgroundColor); if (c.a === 1) return c; } return {r: 255, g: 255, b: 255}; };
	const bad = [];
	let seen = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || e.closest("script, noscript, title") || !e.checkVisibility() || e.closest(":disabled")) continue;
		seen++;
		const style = getComputedStyle(e);
		const svg = e.namespaceURI.endsWith("svg");
		const box = svg && e.closest("#flow") && !e.classList.contains("rate") ? parse(getComputedStyle(e.closest("svg").querySelector("rect:not(.commit)")).fill) : ground(e);
		const [a, b] = [light(parse(svg ? style.fill : style.color)), light(box)].sort((x, y) => y - x);
		const ratio = (a + 0.05) / (b + 0.05);
		if (ratio < 4.5) bad.push(ratio.toFixed(2) + " " + e.tagName + "." + e.className + ": " + e.textContent);
	}
	if (seen < 100) bad.push("only " + seen + " texts were looked at");
	return bad;
})()`

// tooWide gives what makes the page wider than its window. Tables may: they scroll by themselves.
const tooWide = `(() => {
	const width = document.documentElement.clientWidth;
	const wide = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest(".scroll table, .skip, svg, .unseen") && e.getBoundingClientRect().right > width + 0.5);
	return document.documentElement.scrollWidth > width ? ["the document"] : wide.map((e) => e.tagName + "#" + e.id + "." + e.className);
})()`

// At every width, light and dark, the page fits its window and can be read. The pictures are kept with -artifacts.
func TestPageFitsAndCanBeReadAtEveryWidth(t *testing.T) {
	t.Parallel()
	b, _, _ := openBusy(t, io.Discard)
	for _, width := range []int{360, 768, 1440} {
		for scheme, dark := range map[string]bool{"light": false, "dark": true} {
			b.Show(width, dark)
			// The picture of the flow is drawn where there is room, else the table is seen.
			b.Await(fmt.Sprintf(`(document.querySelector("#flow svg") != null) === (document.querySelector("#flow").clientWidth >= 760) && document.documentElement.clientWidth === %d`, width))
			b.Screenshot(fmt.Sprintf("page-%d-%s", width, scheme))
			for what, expression := range map[string]string{"stands out too little": contrasts, "does not fit": tooWide} {
				var bad []string
				b.Evaluate(expression, &bad)
				for _, one := range bad {
					t.Errorf("at %d px, %s: %s: %s", width, scheme, what, one)
				}
			}
		}
	}
	calm(t, b)
}

// Who hears the page, or has no mouse, finds the same.
func TestPageIsSoundForKeyboardAndScreenReader(t *testing.T) {
	t.Parallel()
	b, _, _ := openBusy(t, io.Discard)
	counts, named := map[string]int{}, map[string]bool{}
	for _, one := range b.Accessibles() {
		counts[one.Role]++
		named[one.Role+" "+one.Name] = true
		switch one.Role {
		case "button", "link", "table", "region", "textbox", "combobox", "heading", "image", "dialog":
			if one.Name == "" {
				t.Errorf("a %s has no name", one.Role)
			}
		}
	}
	for role, least := range map[string]int{"main": 1, "banner": 1, "status": 2, "table": 7, "region": 7, "button": 1, "rowheader": 20, "columnheader": 30} {
		if counts[role] < least {
			t.Errorf("there are %d of role %s, want at least %d: %v", counts[role], role, least, counts)
		}
	}
	for _, want := range []string{"heading orders", "heading Transactions", "table Partitions that this instance owns, and how far each is behind", "rowheader orders/3"} {
		if !named[want] {
			t.Errorf("there is no %q", want)
		}
	}
	var levels []int
	b.Evaluate(`[...document.querySelectorAll("h1, h2, h3")].filter((e) => e.checkVisibility()).map((e) => Number(e.tagName[1]))`, &levels)
	for i, level := range levels {
		if i == 0 && level != 1 || i > 0 && level > levels[i-1]+1 {
			t.Errorf("headings skip a level: %v", levels)
			break
		}
	}
	// Only the connection and what became of an order are spoken by themselves.
	var spoken []string
	b.Evaluate(`[...document.querySelectorAll("[role=status], [role=alert], [aria-live]")].map((e) => e.id)`, &spoken)
	if got := strings.Join(spoken, " "); got != "connection letters-word order-word confirm-word letter-word" {
		t.Errorf("spoken by themselves: %s", got)
	}

	b.Press("Tab")
	b.Await(`document.activeElement.matches(".skip")`)
	reached := map[string]bool{}
	for range 60 {
		b.Press("Tab")
		var at struct {
			ID      string
			Outline string
		}
		b.Evaluate(`(() => { const e = document.activeElement; return {ID: e.id || e.tagName, Outline: e === document.body ? "" : getComputedStyle(e).outlineStyle}; })()`, &at)
		if at.Outline == "none" {
			t.Errorf("the focus on %s is not seen", at.ID)
		}
		reached[at.ID] = true
	}
	for _, want := range []string{"token", "unlock-go", "SUMMARY", "A", "DIV"} {
		if !reached[want] {
			t.Errorf("the keyboard does not reach %s: %v", want, reached)
		}
	}
	calm(t, b)
}

// An order needs the token, a reason and a confirmation; the audit has it.
func TestPageGivesOrders(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	b, _, _ := openBusy(t, log)
	unlock := func(token string) {
		b.Evaluate(`document.querySelector("#token").value = ""; document.querySelector("#token").focus()`, nil)
		b.Type(token)
		b.Press("Enter")
	}
	unlock("wrong")
	b.Await(`document.querySelector("#order-word").textContent === "The token is wrong."`)
	if complaints := b.Complaints(); len(complaints) != 1 || !strings.Contains(complaints[0], "401") {
		t.Errorf("of a refused token the browser says %q, want the 401 only", complaints)
	}
	unlock(testToken)
	b.Await(`document.querySelector("#drain").checkVisibility()`)
	b.Click("#effect-look")
	b.Await(`document.querySelectorAll("#found tbody tr").length === 5`)
	if text := textOf(b, "#found"); !strings.Contains(text, "3:0") || !strings.Contains(text, "payments") || strings.Contains(text, "hunter2") {
		t.Errorf("the effects are %q", text)
	}
	b.Click("#found tbody button[aria-label='Retry effect 3:0']")
	b.Await(`document.querySelector("#confirm").open && document.activeElement.id === "reason"`)
	b.Screenshot("page-confirm")
	b.Press("Enter") // without a reason
	if strings.Contains(log.String(), "admin action") {
		t.Errorf("ordered without a reason: %s", log)
	}
	b.Press("Escape")
	b.Await(`!document.querySelector("#confirm").open && document.activeElement.matches("#found button")`)
	b.Press("Enter")
	b.Await(`document.querySelector("#confirm").open`)
	b.Type("provider fixed")
	b.Press("Tab")
	b.Type("anna")
	b.Click("#confirm-go")
	b.Await(`document.querySelector("#order-word").textContent.startsWith("Ordered: retry effect 3:0")`)
	for _, part := range []string{`"admin action accepted"`, `"action":"retry"`, `"effect":"3:0"`, `"reason":"provider fixed"`, `"actor":"anna@127.0.0.1"`} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the audit line has no %s: %s", part, log)
		}
	}
	b.Click("#audit-look")
	b.Await(`document.querySelector("#audit-scroll").checkVisibility()`)
	var kept string
	b.Evaluate(`JSON.stringify([localStorage, sessionStorage, location.href, document.querySelector("#token").value])`, &kept)
	if strings.Contains(kept, testToken) {
		t.Errorf("the token is kept: %s", kept)
	}
	b.Click("#lock")
	b.Await(`!document.querySelector("#unlocked").checkVisibility() && document.querySelectorAll("#found tbody tr").length === 0`)
	calm(t, b)
}

// A pause is ordered on the page with a reason and an end, is seen at the top of it at once, and resumed there.
func TestPagePausesAndResumes(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	b, _, _ := openBusy(t, log)
	var buttons int
	if b.Evaluate(`document.querySelectorAll("#pauses button").length`, &buttons); buttons != 0 {
		t.Errorf("%d buttons before the token was given", buttons)
	}
	b.Evaluate(`document.querySelector("#token").focus()`, nil)
	b.Type(testToken)
	b.Press("Enter")
	b.Await(`document.querySelectorAll("#pauses button").length === 2`)
	b.Screenshot("page-pauses")

	b.Evaluate(`document.querySelector("#pause-target").focus()`, nil)
	b.Type("input/orders/3")
	b.Press("Enter")
	b.Await(`document.querySelector("#confirm").open && document.querySelector("#confirm-title").textContent === "Pause input/orders/3?"`)
	b.Screenshot("page-pause-confirm")
	b.Click("#confirm-go")
	b.Await(`document.querySelector("#confirm").open`) // there is no reason yet
	b.Evaluate(`document.querySelector("#for").focus()`, nil)
	b.Type("30m")
	b.Evaluate(`document.querySelector("#reason").focus()`, nil)
	b.Type("spoilt by a deploy")
	b.Click("#confirm-go")
	b.Await(`document.querySelector("#order-word").textContent === "Ordered: input/orders/3 is paused."`)
	b.Await(`document.querySelectorAll("#pauses li").length === 3 && document.querySelector("#pauses-title").textContent.endsWith("3")`)
	if text := textOf(b, "#pauses"); !strings.Contains(text, "input/orders/3 is paused") || !strings.Contains(text, "spoilt by a deploy") {
		t.Errorf("the page says %q", text)
	}
	b.Click(`#pauses button[aria-label="Resume endpoint/mail"]`)
	b.Await(`document.querySelector("#confirm-title").textContent === "Resume endpoint/mail?" && !document.querySelector("#for-label").checkVisibility()`)
	b.Type("it is back")
	b.Click("#confirm-go")
	b.Await(`document.querySelectorAll("#pauses li").length === 2 && document.querySelector("#order-word").textContent === "Ordered: endpoint/mail is resumed."`)
	for _, want := range []string{`"action":"pause","target":"input/orders/3","for":"30m","reason":"spoilt by a deploy"`, `"action":"resume","target":"endpoint/mail","for":"","reason":"it is back"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the audit has no %s: %s", want, log.String())
		}
	}
	calm(t, b)
}

// openLetters opens the page of a service with dead letters, unlocks it and looks at them.
func openLetters(t *testing.T, contents bool) (*testkit.Browser, *running) {
	t.Helper()
	r := runWithLetters(t, contents)
	r.awaitProbe("/readyz", http.StatusOK)
	b := testkit.OpenBrowser(t)
	b.Show(1440, false)
	b.Go(r.url)
	b.Await(`document.querySelector("#connection").textContent === "Live" && document.querySelector("#letters-locked").checkVisibility() && !document.querySelector("#letters-look").checkVisibility()`)
	b.Evaluate(`document.querySelector("#token").focus()`, nil)
	b.Type(testToken)
	b.Press("Enter")
	b.Await(`document.querySelector("#letters-look").checkVisibility() && !document.querySelector("#letters-locked").checkVisibility()`)
	b.Click("#letters-look")
	b.Await(`document.querySelectorAll("#letters-found tbody").length === 3`)
	b.Complaints() // a process without a ledger answers 404 to the token's trial
	return b, r
}

// holds tells whether a text is anywhere in the document, shown or not.
func holds(b *testkit.Browser, text string) (is bool) {
	b.Evaluate(fmt.Sprintf(`document.documentElement.outerHTML.includes(%q)`, text), &is)
	return is
}

// lettersAreSound wants the list, and a dialog that is open, to fit and to be read at every width, light and dark.
func lettersAreSound(t *testing.T, b *testkit.Browser, name string) {
	t.Helper()
	for _, width := range []int{360, 768, 1440} {
		for scheme, dark := range map[string]bool{"light": false, "dark": true} {
			b.Show(width, dark)
			b.Await(fmt.Sprintf(`document.documentElement.clientWidth === %d`, width))
			b.Screenshot(fmt.Sprintf("page-%s-%d-%s", name, width, scheme))
			for what, expression := range map[string]string{"stands out too little": contrasts, "does not fit": tooWide} {
				var bad []string
				b.Evaluate(expression, &bad)
				for _, one := range bad {
					t.Errorf("%s at %d px, %s: %s: %s", name, width, scheme, what, one)
				}
			}
		}
	}
	b.Show(1440, false)
}

// Where contents are not allowed, the page shows all about a dead letter but what was in it, and says what would.
func TestPageShowsADeadLetterWithoutItsContents(t *testing.T) {
	t.Parallel()
	b, _ := openLetters(t, false)
	for selector, parts := range map[string][]string{
		"#letters-found":   {"bad_json: 8, the last 5", "no_price: 2", notOurs + ": 1", "shop.dead-letter", "line 3 is no no_price " + markup, "open"},
		"#letters-word":    {"11 read, which are all."},
		"#letters-caption": {"of all instances"},
	} {
		text := textOf(b, selector)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %q: %q", selector, part, text)
			}
		}
	}
	lettersAreSound(t, b, "letters")
	b.Click(`#letters-found button[aria-label="Show dead letter 0/0"]`)
	b.Await(`document.querySelector("#letter").open && document.activeElement.id === "letter-close"`)
	text := textOf(b, "#letter")
	for _, part := range []string{
		"Dead letter 0/0", "no_price", "raw/0/0", `"k-0"`, "line 3 is no no_price " + markup, "authorization", "14", "hidden", "null", "bytes.",
		"admin.contents is false in this process", "processor dlq show 0/0 shows them", "processor dlq redrive 0/0",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the letter has no %q: %q", part, text)
		}
	}
	lettersAreSound(t, b, "letter-hidden")
	for _, one := range b.Accessibles() {
		switch one.Role {
		case "button", "table", "region", "heading", "dialog":
			if one.Name == "" {
				t.Errorf("a %s has no name", one.Role)
			}
		}
	}
	var images int
	if b.Evaluate("document.images.length", &images); images != 0 {
		t.Error("a text has become markup")
	}
	if holds(b, secretWord) {
		t.Error("the document holds contents that are not allowed")
	}
	calm(t, b)
}

// Where contents are allowed they are shown on one more press, as text, and nothing of them stays once the letter is closed.
func TestPageShowsTheContentsOfADeadLetter(t *testing.T) {
	t.Parallel()
	b, r := openLetters(t, true)
	button := `document.activeElement.matches("button[aria-label='Show dead letter 0/0']")`
	b.Evaluate(`document.querySelector("#letters-found button[aria-label='Show dead letter 0/0']").focus()`, nil)
	b.Press("Enter")
	b.Await(`document.querySelector("#letter").open`)
	if holds(b, secretWord) {
		t.Error("contents are there before they were asked for")
	}
	b.Click("#letter-contents")
	b.Await(`document.querySelector("#letter-value").checkVisibility()`)
	if text := textOf(b, "#letter-value"); !strings.Contains(text, "\n  \"note\": \""+markup+"\",\n") {
		t.Errorf("the value is %q", text)
	}
	if text := textOf(b, "#letter-headers"); !strings.Contains(text, "Bearer "+secretWord) {
		t.Errorf("the headers are %q", text)
	}
	lettersAreSound(t, b, "letter")
	b.Press("Escape")
	b.Await(`!document.querySelector("#letter").open && ` + button)
	b.Await(fmt.Sprintf(`!document.documentElement.outerHTML.includes(%q)`, secretWord)) // it is told of the end after it
	b.Click(`#letters-found button[aria-label="Show dead letter 0/9"]`)
	b.Await(`document.querySelector("#letter").open`)
	b.Click("#letter-contents")
	b.Await(`document.querySelector("#letter-value").checkVisibility()`)
	if text := textOf(b, "#letter"); !strings.Contains(text, "10 bytes of no text, in hexadecimal.") || !strings.Contains(text, "00 01 ff 68") {
		t.Errorf("the letter is %q", text)
	}
	b.Screenshot("page-letter-hex")
	r.line("contents of a dead letter were shown")
	b.Click("#letter-close")
	b.Click("#lock")
	b.Await(`!document.querySelector("#letters").checkVisibility() && document.querySelectorAll("#letters-found tbody").length === 0`)
	calm(t, b)
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *lockedBuffer) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(text)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

// A page that is cut off says since when, and is live again by itself when the process is back.
func TestPageSaysThatItIsStaleAndComesBack(t *testing.T) {
	t.Parallel()
	b, url, end := openBusy(t, io.Discard)
	calm(t, b)
	end()
	b.Await(`/^Stale since \d\d:\d\d:\d\d: /.test(document.querySelector("#connection").textContent)`)
	b.Screenshot("page-stale")
	b.Complaints() // of refused connections, which there are to be
	serveBusy(t, strings.TrimPrefix(url, "http://"), io.Discard)
	b.Await(live)
}

// The page of a real service follows it: records that come in, a drain that is ordered on the page, the end.
func TestPageFollowsARunningService(t *testing.T) {
	t.Parallel()
	r := runMinimal(t, nothing)
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	b := testkit.OpenBrowser(t)
	b.Show(1440, false)
	b.Go(r.url)
	b.Await(`document.querySelector("#partitions th[scope=row]")?.textContent === "raw/0"`)
	b.Await(`document.querySelector("#state").textContent === "Ready"`)
	r.produce("one", "two", "three")
	b.Await(`document.querySelector("#flow-table tbody tr").lastElementChild.textContent === "3"`)
	b.Await(`document.querySelector("#ended tbody th").textContent === "committed"`)
	b.Screenshot("page-service")
	b.Evaluate(`document.querySelector("#token").focus()`, nil)
	b.Type(testToken)
	b.Press("Enter")
	b.Await(`document.querySelector("#drain").checkVisibility()`)
	b.Press("Enter") // the focus is on it
	b.Await(`document.activeElement.id === "reason"`)
	b.Type("maintenance")
	b.Click("#leave")
	b.Click("#confirm-go")
	r.line("drained, resting until the process is told to end")
	b.Await(`document.querySelector("#state").textContent === "Draining" && document.querySelector("#order-word").textContent === "Draining, and leaving the group."`)
	// A process without a ledger answers 404 to the token's trial.
	if complaints := b.Complaints(); len(complaints) != 1 || !strings.Contains(complaints[0], "404") {
		t.Errorf("the browser complains: %q", complaints)
	}
	r.end()
	b.Await(`document.querySelector("#connection").textContent.startsWith("Stale since ")`)
}

// A browser gives a stream up for good that is refused; the page asks again, until one of those who look leaves.
func TestPageComesBackAfterARefusedStream(t *testing.T) {
	t.Parallel()
	url, _ := serveBusy(t, "127.0.0.1:0", io.Discard)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	full := false
	for streams := 0; !full && streams < 100; streams++ {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/events", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		full = answer.StatusCode == http.StatusServiceUnavailable
	}
	if !full {
		t.Fatal("no stream was refused")
	}
	b := testkit.OpenBrowser(t)
	b.Show(1440, false)
	b.Go(url)
	b.Await(`document.querySelector("#connection").textContent.startsWith("Not connected.")`)
	if complaints := b.Complaints(); len(complaints) == 0 || !strings.Contains(complaints[0], "503") {
		t.Errorf("the browser complains: %q, want the refused stream", complaints)
	}
	leave()
	b.Await(live)
}
