package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/app"
	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
	"pawl/internal/outbox/ledger/ledgertest"
	"pawl/internal/postgres"
)

// fakeLedger has effects and keeps orders. What fills a ledger goes to one in memory.
type fakeLedger struct {
	app.RebuildStore

	effects []ledger.Effect
	asked   ledger.Filter
	orders  []outbox.Order
	actor   string
	audit   []outbox.Audit
	audited outbox.AuditFilter
	version postgres.Version
	broken  error // what Order answers
	closed  int
}

func (f *fakeLedger) List(_ context.Context, filter ledger.Filter) (found []ledger.Effect, _ error) {
	f.asked = filter
	for _, e := range f.effects {
		if (filter.State == "" || e.State == filter.State) && len(found) < filter.Limit {
			found = append(found, e)
		}
	}
	return found, nil
}

func (f *fakeLedger) Show(_ context.Context, lane int32, offset int64) (ledger.Effect, error) {
	for _, e := range f.effects {
		if e.Intent.Lane == lane && e.Intent.Offset == offset {
			return e, nil
		}
	}
	return ledger.Effect{}, fmt.Errorf("show effect %d:%d: %w", lane, offset, ledger.ErrNoEffect)
}

func (f *fakeLedger) ShowID(_ context.Context, id message.ID) (found []ledger.Effect, _ error) {
	for _, e := range f.effects {
		if e.Intent.ID == id {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return nil, ledger.ErrNoEffect
	}
	return found, nil
}

func (f *fakeLedger) Summary(context.Context) ([]ledger.Backlog, error) {
	return []ledger.Backlog{
		{Endpoint: "payments", Pending: 100_000, AtLeast: true, Parked: 3, Dead: 1, Oldest: time.Now().Add(-time.Hour)},
		{Endpoint: "refunds", Unknown: 2},
	}, nil
}

func (f *fakeLedger) Order(_ context.Context, order outbox.Order, actor string) error {
	if f.broken != nil {
		return f.broken
	}
	f.orders, f.actor = append(f.orders, order), actor
	return nil
}

func (f *fakeLedger) Audit(_ context.Context, filter outbox.AuditFilter) ([]outbox.Audit, error) {
	f.audited = filter
	return f.audit, nil
}

func (f *fakeLedger) AuditOf(_ context.Context, lane int32, offset int64) (found []outbox.Audit, _ error) {
	for _, a := range f.audit {
		if a.Order.Lane == lane && a.Order.Offset == offset {
			found = append(found, a)
		}
	}
	return found, nil
}

func (f *fakeLedger) Version(context.Context) (postgres.Version, error) { return f.version, nil }

func (f *fakeLedger) Migrate(context.Context) ([]string, error) {
	f.version.Current = f.version.Wanted
	return []string{"00001_ledger.sql"}, nil
}

func (f *fakeLedger) Close() { f.closed++ }

// office is a fake ledger and a configuration.
type office struct {
	t      *testing.T
	ledger *fakeLedger
	config string
	conf   app.Config // what the last command opened the ledger with
}

func newOffice(t *testing.T, brokers ...string) *office {
	t.Helper()
	if len(brokers) == 0 {
		brokers = []string{"127.0.0.1:1"}
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf(`application: shop
kafka: {brokers: [%q]}
routes: [{topics: [orders], handler: copy, config: {output: out}}]
outputs: {out: {topic: out}}
postgres: {schema: vault}
`, brokers[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &office{t: t, config: config, ledger: &fakeLedger{
		effects: []ledger.Effect{
			effect(0, 5, ledger.Waiting), effect(1, 42, ledger.Dead), effect(1, 43, ledger.Dead), effect(2, 7, ledger.Pending), effect(2, 8, ledger.Done),
		},
		RebuildStore: &ledgertest.Memory{}, version: postgres.Version{Current: 3, Wanted: 3},
	}}
}

func effect(lane int32, offset int64, state ledger.State) ledger.Effect {
	source := message.Source{Application: "shop", Topic: "orders", Partition: lane, Offset: offset}
	e := ledger.Effect{
		Intent: outbox.Intent{
			Lane: lane, Offset: offset, ID: source.ID(0), Source: source, Endpoint: "payments", Class: message.AtLeastOnce, ContentType: "application/json",
			Key: []byte("customer\x1b[2J"), Body: []byte(`{"amount":1}`), At: time.Now().Add(-90 * time.Minute),
		},
		State: state,
	}
	switch state {
	case ledger.Waiting:
		e.Attempts, e.Status, e.Error, e.Role, e.Next = 3, 503, "503 \x1b[31mbusy", outbox.Retry, 30*time.Second
	case ledger.Dead:
		e.Attempts, e.Status, e.Error = 1, 422, "422 no such account"
		e.Outcome = &outbox.Outcome{Offset: offset, Status: outbox.Dead, Response: &outbox.Response{ContentType: "text/plain", Body: []byte("no\x1b"), Truncated: true}}
		e.History = []ledger.Attempt{{Number: 1, At: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), Status: 422, Error: "422 no such account"}}
	case ledger.Pending, ledger.Inflight, ledger.Done, ledger.Unknown, ledger.Duplicate, ledger.Conflict:
	}
	return e
}

func (o *office) run(args ...string) ran {
	o.t.Helper()
	var stdout, stderr bytes.Buffer
	c := newCLI(strings.NewReader(""), &stdout, &stderr, []string{"USER=anna"})
	c.openLedger = func(_ context.Context, conf app.Config) (effectLedger, error) {
		o.conf = conf
		o.ledger.closed--
		return o.ledger, nil
	}
	code := c.execute(o.t.Context(), append(args, "-c", o.config))
	if o.ledger.closed != 0 {
		o.t.Errorf("%v: the ledger was not closed", args)
	}
	return ran{code, stdout.String(), stderr.String()}
}

func (o *office) want(code int, stdout, stderr string, args ...string) ran {
	o.t.Helper()
	got := o.run(args...)
	if got.code != code || !strings.Contains(got.stdout, stdout) || !strings.Contains(got.stderr, stderr) {
		o.t.Errorf("%s: exit code %d, want %d\nstdout:\n%s\nwant in it: %s\nstderr:\n%s\nwant in it: %s", strings.Join(args, " "), got.code, code, got.stdout, stdout, got.stderr, stderr)
	}
	if strings.Contains(got.stdout+got.stderr, "\x1b") {
		o.t.Errorf("%s: a stranger's escape sequence reaches the terminal: %q", strings.Join(args, " "), got.stdout+got.stderr)
	}
	return got
}

func TestEffectsAreListedAndShown(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.want(0, `0:5     parked   1h30m0s  payments  0x637573746f6d65721b5b324a         3     503  30s        503 .[31mbusy`, "", "effects", "ls")
	o.want(0, "1:42    dead", "", "effects", "dead", "ls", "--endpoint", "payments", "--key", "k", "--older", "2d")
	if f := o.ledger.asked; f.State != ledger.Dead || f.Endpoint != "payments" || string(f.Key) != "k" || f.AgeMin != 48*time.Hour || f.Limit != listMaxDefault+1 {
		t.Errorf("the ledger was asked for %+v", f)
	}
	o.want(0, "0:5 ", "there are more than 2: narrow the search", "effects", "ls", "--max", "2")
	o.want(0, "", "no effects", "effects", "ls", "--state", "conflict")
	o.want(0, "payments  >=100000       3     1        0         0  1h0m0s\nrefunds   0              0     0        2         0  -", "", "effects", "ls", "--group")
	o.want(0, `"at_least": true`, "", "effects", "ls", "--group", "-o", "json")

	got := o.want(0, "attempt 1  2026-11-23T10:00:00Z  422  422 no such account\n", "", "effects", "show", "1:42")
	for _, part := range []string{"answer     422 3 bytes, text/plain, cut off\n           0x6e6f1b\n", "body       12 bytes of text, application/json\n\n{\"amount\":1}\n"} {
		if !strings.Contains(got.stdout, part) {
			t.Errorf("show prints\n%s\nwant in it:\n%s", got.stdout, part)
		}
	}
	id := o.ledger.effects[1].Intent.ID.String()
	o.want(0, "effect     1:42\nid         "+id, "", "effects", "show", id)
	o.want(0, "effect     1:42", "", "effects", "show", "1/42")
	o.want(1, "", "the ledger has no such effect", "effects", "show", "9/9")
	var shown []struct {
		Effect   string `json:"effect"`
		Body     []byte `json:"body"`
		Response struct {
			Body []byte `json:"body"`
		} `json:"response"`
		History []struct {
			HTTPStatus int `json:"http_status"`
		} `json:"history"`
	}
	if err := json.Unmarshal([]byte(o.run("effects", "show", "1/42", "2/7", "-o", "json").stdout), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 2 || string(shown[0].Body) != `{"amount":1}` || string(shown[0].Response.Body) != "no\x1b" || shown[0].History[0].HTTPStatus != 422 || shown[1].Effect != "2:7" {
		t.Errorf("shown as JSON: %+v", shown)
	}
}

// Effects of an endpoint that is held wait for a person, which their list does not show otherwise.
func TestEffectsAreListedWithWhatIsHeld(t *testing.T) {
	t.Parallel()
	y := newYard(t, kfake.SeedTopics(1, "shop.control"))
	o := newOffice(t, y.cluster.ListenAddrs()[0])
	config := string(readFile(t, o.config)) + `endpoints: {payments: {url: "https://bank.example/charges"}, refunds: {url: "https://bank.example/refunds"}}` + "\n"
	if err := os.WriteFile(o.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	o.want(0, "1:42 ", "", "effects", "ls")
	if got := o.run("effects", "ls"); got.stderr != "" {
		t.Errorf("nothing is held: %+v", got)
	}
	o.want(0, "ordered: hold", "", "hold", "endpoint/payments", "endpoint/refunds", "--reason", "the \x1b bank", "--yes")
	o.want(0, "ordered: pause", "", "pause", "input", "--reason", "refill", "--yes")
	line := regexp.MustCompile(`^endpoint/(payments|refunds) is paused since [0-9TZ:-]+ by anna@[^ ]+: the \. bank$`)
	for args, want := range map[string]int{"": 2, "--group": 2, "--endpoint refunds": 1, "--endpoint mail": 0, "-o json": 0} {
		got := o.want(0, "payments", "", append([]string{"effects", "ls"}, strings.Fields(args)...)...)
		lines := slices.Collect(strings.Lines(got.stderr))
		for _, one := range lines {
			if !line.MatchString(strings.TrimSuffix(one, "\n")) {
				t.Errorf("%s: %q", args, one)
			}
		}
		if len(lines) != want {
			t.Errorf("%s: %d lines, want %d:\n%s", args, len(lines), want, got.stderr)
		}
	}
	fault := y.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "shop.control", Err: kerr.TopicAuthorizationFailed, Count: -1})
	got := o.want(0, "1:42 ", "warning: what is paused is not known: read control topic shop.control: TOPIC_AUTHORIZATION_FAILED", "effects", "ls")
	if fault.Hits() == 0 || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("%d refusals, and it said\n%s", fault.Hits(), got.stderr)
	}
}

// The list is the ledger's, and stands while the brokers are away.
func TestEffectsAreListedWithoutBrokers(t *testing.T) {
	t.Parallel()
	got := newOffice(t).want(0, "1:42 ", "warning: what is held is not known: connect to kafka: nothing listens at 127.0.0.1:1", "effects", "ls")
	if strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("it said\n%s", got.stderr)
	}
}

func TestEffectsAreRetriedAndCancelledByOrder(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.want(0, "would retry  2 effects", "", "effects", "retry", "--state", "dead", "--reason", "fixed", "--dry-run")
	o.want(2, "", `nobody to ask "Retry 2 effects?"`, "effects", "retry", "--state", "dead", "--reason", "fixed")
	if len(o.ledger.orders) != 0 {
		t.Fatalf("orders are %+v before anybody said yes", o.ledger.orders)
	}
	o.want(0, "ordered to retry  2 effects", "", "effects", "retry", "--state", "dead", "--reason", "fixed", "--yes")
	want := []outbox.Order{
		{Lane: 1, Offset: 42, Action: outbox.RetryNow, Reason: "fixed"}, {Lane: 1, Offset: 43, Action: outbox.RetryNow, Reason: "fixed"},
	}
	if fmt.Sprint(o.ledger.orders) != fmt.Sprint(want) || !strings.HasPrefix(o.ledger.actor, "anna@") {
		t.Errorf("orders are %+v by %s, want %+v by anna", o.ledger.orders, o.ledger.actor, want)
	}

	// What was done is not sent again, and does not stop the others.
	o.ledger.orders = nil
	o.want(3, "ordered to retry  1 effect\nrefused: 2:8      it is done, want dead, unknown, parked", "", "effects", "retry", "2/8", "0/5", "--reason", "fixed", "--yes")
	o.want(3, `"state": "done"`, "", "effects", "cancel", "2/8", "--reason", "why", "--yes", "-o", "json")
	o.want(0, "ordered to cancel  2 effects", "", "effects", "cancel", "2/7", "1/42", "--reason", "by phone", "--yes")
	if n := len(o.ledger.orders); n != 3 || o.ledger.orders[1].Action != outbox.Cancel {
		t.Errorf("orders are %+v", o.ledger.orders)
	}

	// One that is not there stops all.
	o.ledger.orders = nil
	o.want(1, "", "the ledger has no such effect", "effects", "retry", "1/42", "9/9", "--reason", "fixed", "--yes")
	if len(o.ledger.orders) != 0 {
		t.Errorf("orders are %+v, want none", o.ledger.orders)
	}
	o.ledger.broken = errors.New("connection refused")
	o.want(1, "", "connection refused (until then: 0 effects ordered", "effects", "retry", "1/42", "--reason", "fixed", "--yes")
}

func TestOrdersAreAudited(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.want(0, "", "no orders", "effects", "audit")
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	order := func(number int64, action outbox.Action) outbox.Order {
		return outbox.Order{Number: number, Lane: 1, Offset: 42, Action: action, Reason: "bank\x1b is back"}
	}
	o.ledger.audit = []outbox.Audit{
		{Order: order(7, outbox.RetryNow), Actor: "bob@ops\x1b", At: at, Result: outbox.Open},
		{Order: order(3, outbox.Cancel), Actor: "ann@ops", At: at, Result: outbox.Obeyed, Ended: at.Add(time.Second), Owner: "shop.0"},
	}
	o.want(0, "    7  2026-11-23T10:00:00Z  retry   1:42    bob@ops.  open    bank. is back\n    3  2026-11-23T10:00:00Z  cancel  1:42    ann@ops   obeyed  bank. is back", "",
		"effects", "audit", "--since", "2d", "--actor", "ann@ops", "--max", "9")
	if f := o.ledger.audited; f.Actor != "ann@ops" || f.Limit != 9 || time.Since(f.Since) < 48*time.Hour || time.Since(f.Since) > 49*time.Hour {
		t.Errorf("the ledger was asked for %+v", f)
	}
	o.want(0, `"ended": "2026-11-23T10:00:01Z"`, "", "effects", "audit", "-o", "json", "--since", "2026-11-23T10:00:00Z")
	if f := o.ledger.audited; !f.Since.Equal(at) {
		t.Errorf("the ledger was asked for %+v", f)
	}
	o.want(0, "order to cancel  2026-11-23T10:00:00Z  by ann@ops: bank. is back; obeyed at 2026-11-23T10:00:01Z\n", "", "effects", "show", "1:42")
	o.want(0, `"owner": "shop.0"`, "", "effects", "show", "1:42", "-o", "json")
}

func TestEffectsRefuseWrongUsage(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, test := range []struct {
		stderr string
		args   []string
	}{
		{`--state is "lost", want one of pending, inflight, parked`, []string{"ls", "--state", "lost"}},
		{"--max is 0, want 1 or more", []string{"ls", "--max", "0"}},
		{`--older is "old"`, []string{"ls", "--older", "old"}},
		{"--group counts everything", []string{"ls", "--group", "--state", "dead"}},
		{`effect "3-4": want lane:offset`, []string{"show", "3-4"}},
		{`effect "-1/4": want lane:offset`, []string{"show", "--", "-1/4"}},
		{"--bytes is -1", []string{"show", "1/1", "--bytes", "-1"}},
		{`--since is "old", want a time`, []string{"audit", "--since", "old"}},
		{"--max is 0, want 1 or more", []string{"audit", "--max", "0"}},
		{`--reason is empty: say why, the audit keeps it; for example --reason "`, []string{"retry", "1/42"}},
		{"--reason is empty", []string{"cancel", "1/42", "--reason", " "}},
		{"give either effects or filters", []string{"retry", "1/42", "--state", "dead", "--reason", "x"}},
		{"give effects, or --state with one of dead, unknown, parked", []string{"retry", "--endpoint", "payments", "--reason", "x"}},
		{`--state is "done", and one can cancel what is pending, parked, dead`, []string{"cancel", "--state", "done", "--reason", "x"}},
	} {
		o.want(2, "", test.stderr, append([]string{"effects"}, test.args...)...)
	}
}

func TestEffectsNeedTheSchema(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.ledger.version.Current = 1
	o.want(1, "", "schema vault is at version 1, this program wants 3: run `processor migrate up`", "effects", "ls")
	got := invoke(t, nil, "effects", "ls", "-c", o.config)
	if got.code != exitUsage || !strings.Contains(got.stderr, "postgres.dsn_file") {
		t.Errorf("without a database: %+v", got)
	}
}

func TestMigrateTellsAndMends(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.want(0, "schema   vault\nversion  3\nwanted   3\n", "", "migrate", "status")
	o.want(0, "wanted   3\n", "", "migrate", "up") // nothing to do, nothing to ask
	o.ledger.version.Current = 0
	o.want(3, `"behind": true`, "run `processor migrate up`", "migrate", "status", "-o", "json")
	o.want(0, "version  0\n", "", "migrate", "up", "--dry-run")
	o.want(2, "", `nobody to ask "Bring schema vault from version 0 to 3?"`, "migrate", "up")
	o.want(0, "version  3\nwanted   3\napplied  00001_ledger.sql\n", "", "migrate", "up", "--yes")
	o.want(0, "pawl_app", "", "migrate", "roles")
}

func TestLedgerRebuildBeginsUnknownLanes(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "shop.effects", "shop.effect-results"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	o := newOffice(t, cluster.ListenAddrs()[0])
	if err := o.ledger.Seed(t.Context(), 1, [16]byte{}, 77); err != nil {
		t.Fatal(err)
	}
	o.want(0, "   0      0    0     0  begin         0     0        0        0      0     0      0\n   1      0    0    77  kept ", "", "ledger", "rebuild", "--reason", "lost", "--dry-run")
	o.want(2, "", `nobody to ask "Begin 1 lane anew, settle up to 0 effects that were told of, and call up to 0 effects?"`, "ledger", "rebuild", "--reason", "lost")
	if head, err := o.ledger.Head(t.Context(), 0); err != nil || head.Known {
		t.Errorf("a lane was begun before anybody said yes: %+v, %v", head, err)
	}
	o.want(0, `"action": "begun"`, "", "ledger", "rebuild", "--reason", "lost", "--yes", "-o", "json")
	o.want(0, "   0      0    0     0  kept ", "", "ledger", "rebuild", "--reason", "lost")
	for lane, next := range []int64{0, 77} {
		head, err := o.ledger.Head(t.Context(), int32(lane))
		if err != nil || !head.Known || head.Next != next {
			t.Errorf("lane %d is %+v, %v, want it at %d", lane, head, err, next)
		}
	}
	o.want(2, "", `--from is "middle", want earliest or latest`, "ledger", "rebuild", "--reason", "x", "--from", "middle")
	o.want(2, "", "give one of them", "ledger", "rebuild", "--reason", "x", "--from", "latest", "--repeat-told")
	o.want(2, "", "--reason is empty", "ledger", "rebuild", "--reason", " ")
}
