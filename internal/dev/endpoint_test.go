package dev

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch/httptarget"
)

// provider is an endpoint that runs until its end is asked for, or the test's.
type provider struct {
	*Endpoint
	target *httptarget.Target
	end    func() error // stops it and returns what Run returned
}

func openProvider(t *testing.T, config EndpointConfig) *provider {
	t.Helper()
	config.Listen = "127.0.0.1:0"
	endpoint, err := OpenEndpoint(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := httptarget.New(httptarget.Config{URL: endpoint.URL(), AllowPrivate: true, Concurrency: 4})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- endpoint.Run(ctx) }()
	p := &provider{Endpoint: endpoint, target: target}
	over := false
	p.end = func() error {
		over = true
		target.Close()
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if !over {
			if err := p.end(); err != nil {
				t.Error(err)
			}
		}
	})
	return p
}

// made is a call for a charge. Offset, attempt and fence are what tests vary.
func made(customer, order string, offset int64, attempt int, fence int64) outbox.Call {
	source := message.Source{Application: "orders", Topic: "orders", Offset: offset}
	return outbox.Call{
		Attempt: attempt, Fence: fence,
		Intent: outbox.Intent{
			Lane: 3, Offset: offset, ID: source.ID(0), Source: source, Endpoint: "payments",
			Class: message.AtLeastOnce, ContentType: "application/json",
			Body: fmt.Appendf(nil, `{"schema_version":1,"operation":"charge","order_id":%q,"customer_id":%q,"currency":"EUR","amount":"12.00"}`, order, customer),
		},
	}
}

func (p *provider) send(t *testing.T, call outbox.Call) outbox.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return p.target.Send(ctx, call)
}

// What the handler asks for is what the endpoint takes, called as Pawl calls.
func TestChargesOfOrdersAreTaken(t *testing.T) {
	t.Parallel()
	p := openProvider(t, EndpointConfig{})
	orders, err := load.NewOrders(load.OrdersConfig{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	h, charges := newHandler(t), int64(0)
	for n := range int64(20) {
		var record kgo.Record
		orders.Fill(&record, load.Stamp{N: n})
		var batch message.Batch
		source := message.Source{Application: "orders", Topic: "orders", Offset: n}
		if err := h.Handle(message.In{Source: source, Key: record.Key, Value: record.Value, Timestamp: record.Timestamp}, &batch); err != nil {
			t.Fatal(err)
		}
		for _, effect := range batch.Effects() {
			charges++
			answer := p.send(t, outbox.Call{Attempt: 1, Fence: 1, Intent: outbox.Intent{
				Offset: n, ID: source.ID(0), Class: message.AtLeastOnce, ContentType: "application/json", Body: effect.Body,
			}})
			var receipt struct{ Receipt, Operation string }
			if answer.Status != 200 || json.Unmarshal(answer.Response.Body, &receipt) != nil || receipt.Operation != "charge" || receipt.Receipt == "" {
				t.Fatalf("%+v: %s", answer, answer.Response.Body)
			}
		}
	}
	want := EndpointSummary{Calls: charges, Distinct: charges, Charged: charges}
	if diff := cmp.Diff(want, p.Summary()); diff != "" || charges == 0 {
		t.Errorf("%d charges (-want +got):\n%s", charges, diff)
	}
}

func TestSettledKeyGetsItsAnswerAgain(t *testing.T) {
	t.Parallel()
	for decline, status := range map[float64]int{0: 200, 1: 402} {
		p := openProvider(t, EndpointConfig{Decline: decline})
		first, second := p.send(t, made("ann", "1", 10, 1, 1)), p.send(t, made("ann", "1", 10, 2, 1))
		if first.Status != status || !cmp.Equal(first, second) {
			t.Errorf("first %+v, second %+v", first, second)
		}
		got := p.Summary()
		if got.Charged+got.Declined != 1 || got.Duplicates != 1 || got.Distinct != 1 {
			t.Errorf("summary: %+v", got)
		}
		other := made("ann", "1", 10, 3, 1)
		other.Intent.Body = append([]byte(" "), other.Intent.Body...)
		if answer := p.send(t, other); answer.Status != 422 || p.Summary().Mismatched != 1 {
			t.Errorf("another body: %+v", answer)
		}
	}
}

// The same calls have the same fates in every run, at the shares that were asked for.
func TestFatesFollowFromSeedKeyAndCall(t *testing.T) {
	t.Parallel()
	type fated struct {
		fate Fate
		late bool
	}
	fates := func(seed uint64) (all []fated, count map[fated]int) {
		e := &Endpoint{config: EndpointConfig{Seed: seed, Fail: 0.06, Late: 0.1}}
		count = make(map[fated]int)
		for n := range int64(10_000) {
			for nth := 1; nth <= 2; nth++ {
				fate, late := e.fate(message.Source{Offset: n}.ID(0).String(), nth)
				all = append(all, fated{fate, late})
				count[fated{fate, false}]++
				if late {
					count[fated{late: true}]++
				}
			}
		}
		return all, count
	}
	first, count := fates(1)
	again, _ := fates(1)
	other, _ := fates(2)
	if !cmp.Equal(first, again, cmp.AllowUnexported(fated{})) {
		t.Error("the same seed gives other fates")
	}
	if cmp.Equal(first, other, cmp.AllowUnexported(fated{})) {
		t.Error("another seed gives the same fates")
	}
	for what, share := range map[fated]float64{{fate: FateAnswer}: 0.94, {fate: FateError}: 0.02, {fate: FateUnavailable}: 0.02, {fate: FateReset}: 0.02, {late: true}: 0.1} {
		if got := float64(count[what]) / float64(len(first)); math.Abs(got-share) > 0.01 {
			t.Errorf("%+v: share %.3f, want about %.2f", what, got, share)
		}
	}
}

// Half of all calls fail. Every charge gets through by being tried again, and is made once.
func TestFailingEndpointChargesOnce(t *testing.T) {
	t.Parallel()
	journal := filepath.Join(t.TempDir(), "journal")
	p := openProvider(t, EndpointConfig{Seed: 5, Fail: 0.5, Late: 0.3, LateBy: time.Millisecond, Journal: journal})
	const charges = 60
	fates := make(map[string]int)
	for n := range int64(charges) {
		for attempt := 1; ; attempt++ {
			answer := p.send(t, made("ann", fmt.Sprint("o", n), n, attempt, 1))
			if answer.Err != nil {
				fates["reset"]++
				continue
			}
			fates[strconv.Itoa(answer.Status)]++
			if answer.Status == 200 {
				break
			}
		}
	}
	if fates["200"] != charges || fates["500"] == 0 || fates["503"] == 0 || fates["reset"] == 0 {
		t.Errorf("answers: %v", fates)
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	got := p.Summary()
	want := EndpointSummary{
		Calls: got.Calls, Distinct: charges, Charged: charges, Failed: int64(fates["500"] + fates["503"]), Lost: got.Lost, Late: got.Late,
		Duplicates: got.Duplicates, AfterLost: got.Duplicates, // each after a reset, or a failure after that
	}
	if diff := cmp.Diff(want, got); diff != "" || got.Late == 0 || got.Duplicates == 0 {
		t.Errorf("summary (-want +got):\n%s", diff)
	}

	file, err := os.Open(journal)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var told []ChargeCall
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var call ChargeCall
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		told = append(told, call)
	}
	if diff := cmp.Diff(p.Calls(), told, cmpopts.IgnoreUnexported(ChargeCall{})); diff != "" || int64(len(told)) != got.Calls {
		t.Errorf("journal (-calls +journal):\n%s", diff)
	}
}

// The caller gives up before the answer comes: the charge is made, and the endpoint knows that nobody
// heard of it.
func TestAnswerThatComesTooLateIsLost(t *testing.T) {
	t.Parallel()
	p := openProvider(t, EndpointConfig{Late: 1, LateBy: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if answer := p.target.Send(ctx, made("ann", "1", 10, 1, 1)); answer.Err == nil || !answer.Sent {
		t.Errorf("answer: %+v", answer)
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	want := EndpointSummary{Calls: 1, Distinct: 1, Charged: 1, Late: 1, Lost: 1}
	if diff := cmp.Diff(want, p.Summary()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

func TestEndpointEndsWhileAnswersAreLate(t *testing.T) {
	t.Parallel()
	p := openProvider(t, EndpointConfig{Late: 1, LateBy: time.Hour})
	answered := make(chan outbox.Answer, 1)
	go func() { answered <- p.target.Send(context.Background(), made("ann", "1", 10, 1, 1)) }()
	if err := until(t.Context(), time.Millisecond, func() (bool, error) { return p.Summary().Calls > 0, nil }); err != nil {
		t.Fatal(err)
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if answer := <-answered; answer.Err == nil {
		t.Errorf("answer: %+v", answer)
	}
}

// Each row is what happened to a key before, and a call for it.
func TestEveryRepeatHasItsReason(t *testing.T) {
	t.Parallel()
	type step struct {
		attempt int
		fence   int64
		fate    Fate
		want    Repeat
	}
	for name, steps := range map[string][]step{
		"reset, then again":              {{1, 1, FateReset, RepeatNone}, {2, 1, FateAnswer, RepeatLost}},
		"reset twice":                    {{1, 1, FateReset, RepeatNone}, {2, 1, FateReset, RepeatLost}, {3, 1, FateAnswer, RepeatLost}},
		"a failure in between":           {{1, 1, FateReset, RepeatNone}, {2, 1, FateError, RepeatLost}, {3, 1, FateAnswer, RepeatLost}},
		"failures before are no repeats": {{1, 1, FateError, RepeatNone}, {2, 1, FateUnavailable, RepeatNone}, {3, 1, FateAnswer, RepeatNone}},
		"the owner died":                 {{1, 1, FateAnswer, RepeatNone}, {1, 2, FateAnswer, RepeatTakeover}},
		"two owners died":                {{1, 1, FateAnswer, RepeatNone}, {1, 2, FateAnswer, RepeatTakeover}, {1, 3, FateAnswer, RepeatTakeover}},
		"no answer in time":              {{1, 1, FateAnswer, RepeatNone}, {2, 1, FateAnswer, RepeatRetry}},
		"made twice":                     {{1, 1, FateAnswer, RepeatNone}, {1, 1, FateAnswer, RepeatUnexplained}},
		"made twice by the new owner":    {{1, 1, FateAnswer, RepeatNone}, {1, 2, FateAnswer, RepeatTakeover}, {1, 2, FateAnswer, RepeatUnexplained}},
		"made again by the old owner":    {{1, 2, FateAnswer, RepeatNone}, {1, 1, FateAnswer, RepeatUnexplained}},
		"heard, then made twice":         {{1, 1, FateReset, RepeatNone}, {2, 1, FateAnswer, RepeatLost}, {2, 1, FateAnswer, RepeatUnexplained}},
	} {
		b := newBook()
		var repeats int64
		for i, s := range steps {
			call, _ := b.judge(ChargeCall{ID: "a", Order: "1:1", Charge: "charge:1", Customer: "ann", Attempt: s.attempt, Fence: s.fence, Fate: s.fate, lane: 1, offset: 1}, false, chargeBody{})
			if call.Repeat != s.want {
				t.Errorf("%s: call %d is %q, want %q", name, i, call.Repeat, s.want)
			}
			if s.want != RepeatNone {
				repeats++
			}
		}
		got := b.summary
		if got.Charged != 1 || got.Duplicates != repeats || got.AfterLost+got.AfterDeath+got.AfterRetry+got.Unexplained != repeats {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestBookSeesWhatMustNeverBe(t *testing.T) {
	t.Parallel()
	b := newBook()
	charge := func(id, customer, order string, lane int32, offset, fence int64) {
		b.judge(ChargeCall{ID: id, Charge: "charge:" + order, Customer: customer, Attempt: 1, Fence: fence, Fate: FateAnswer, lane: lane, offset: offset}, false, chargeBody{})
	}
	charge("a", "ann", "1", 0, 10, 5)
	charge("b", "ann", "2", 0, 20, 5)
	charge("c", "bob", "3", 0, 15, 5) // another customer: no order between them
	charge("a", "ann", "1", 0, 10, 6) // again, after a takeover: no disorder, it was settled in its turn
	if got := b.summary; got.OrderViolations+got.ChargedTwice+got.StaleFences+got.Unexplained != 0 {
		t.Fatalf("all was well, but: %+v", got)
	}
	charge("d", "ann", "4", 0, 19, 6) // after offset 20
	charge("e", "ann", "5", 1, 30, 6) // in another lane
	charge("f", "bob", "3", 0, 40, 6) // order 3 under another key
	charge("g", "bob", "6", 0, 50, 5) // by an owner that has been replaced
	want := EndpointSummary{Calls: 8, Distinct: 7, Charged: 7, Duplicates: 1, AfterDeath: 1, OrderViolations: 2, ChargedTwice: 1, StaleFences: 1}
	if diff := cmp.Diff(want, b.summary); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if !b.calls[4].Disorder || !b.calls[5].Disorder || b.calls[6].Disorder {
		t.Errorf("calls: %+v", b.calls[4:])
	}
}

func TestCallsThatPawlNeverMakesAreRefused(t *testing.T) {
	t.Parallel()
	p := openProvider(t, EndpointConfig{})
	good := map[string]string{"Idempotency-Key": "a", "Pawl-Order": "1:2", "Pawl-Attempt": "1", "Pawl-Fence": "1"}
	const body = `{"operation":"charge","order_id":"1","customer_id":"ann"}`
	post := func(body string, change map[string]string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range good {
			request.Header.Set(name, value)
		}
		for name, value := range change {
			request.Header.Set(name, value)
		}
		request.Close = true
		response, err := (&http.Transport{}).RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode
	}
	malformed := int64(0)
	for name, values := range map[string][]string{
		"Idempotency-Key": {""},
		"Pawl-Order":      {"", "1", "1:", ":2", "a:2", "1:b", "-1:2", "1:-2", "5000000000:1"},
		"Pawl-Attempt":    {"", "0", "-1", "x"},
		"Pawl-Fence":      {"", "x"},
	} {
		for _, value := range values {
			malformed++
			if got := post(body, map[string]string{name: value}); got != 400 {
				t.Errorf("%s %q is answered %d", name, value, got)
			}
		}
	}
	for _, bad := range []string{"", "{", "[]", "{}", `{"operation":"charge","order_id":"1"}`, strings.Repeat(" ", chargeBytesMax+1)} {
		malformed++
		if got := post(bad, nil); got != 400 {
			t.Errorf("a body of %d bytes is answered %d", len(bad), got)
		}
	}
	if got := post(body, nil); got != 200 {
		t.Errorf("a good call is answered %d", got)
	}
	if diff := cmp.Diff(EndpointSummary{Calls: 1, Distinct: 1, Charged: 1, Malformed: malformed}, p.Summary()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

// A proof must not rest on a journal with a hole.
func TestJournalThatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	p := openProvider(t, EndpointConfig{Journal: filepath.Join(t.TempDir(), "journal")})
	if err := p.journal.Close(); err != nil {
		t.Fatal(err)
	}
	if answer := p.send(t, made("ann", "1", 10, 1, 1)); answer.Status != 200 {
		t.Errorf("answer: %+v", answer)
	}
	if err := p.end(); err == nil || !strings.Contains(err.Error(), "write journal") {
		t.Errorf("Run returned %v", err)
	}
}

func TestEndpointThatCannotBeOpenedSaysWhy(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, config := range map[string]EndpointConfig{
		"address already in use": {Listen: taken.Addr().String(), Journal: filepath.Join(t.TempDir(), "journal")},
		"journal: ":              {Listen: "127.0.0.1:0", Journal: t.TempDir()},
		"share fail is 1.5":      {Listen: "127.0.0.1:0", Fail: 1.5},
		"share late is NaN":      {Listen: "127.0.0.1:0", Late: math.NaN()},
		"share decline is -1":    {Listen: "127.0.0.1:0", Decline: -1},
		"late by -1s":            {Listen: "127.0.0.1:0", LateBy: -time.Second},
	} {
		if _, err := OpenEndpoint(t.Context(), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", config, err, want)
		}
	}
}

// A call is under way, by its sender, until its answer is out: that is what the demo kills into.
func TestEndpointKnowsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	e, err := OpenEndpoint(t.Context(), EndpointConfig{Listen: "127.0.0.1:0", Late: 1, LateBy: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL(), strings.NewReader(`{"operation":"charge","order_id":"o","customer_id":"ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Idempotency-Key": "a", "Pawl-Order": "1:2", "Pawl-Attempt": "1", "Pawl-Fence": "1", senderHeader: "b"} {
		request.Header.Set(name, value)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if response, err := http.DefaultTransport.RoundTrip(request); err == nil {
			_ = response.Body.Close()
		}
	}()
	wait := func(sender string, want int) {
		t.Helper()
		limit, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := until(limit, time.Millisecond, func() (bool, error) { return e.UnderWay(sender) == want, nil }); err != nil {
			t.Fatalf("%d calls of %s are under way, want %d", e.UnderWay(sender), sender, want)
		}
	}
	wait("b", 1)
	wait("a", 0)
	end()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	<-answered
	wait("b", 0)
	if calls := e.Calls(); len(calls) != 1 || calls[0].Sender != "b" {
		t.Errorf("calls = %+v", calls)
	}
}
