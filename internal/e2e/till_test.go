//go:build chaos && linux

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// till is the payment provider of a tempest: it takes charges and gives them back, honours idempotency
// keys, writes every call down, and behaves as badly as it is told to.
type till struct {
	server *httptest.Server

	mu      sync.Mutex
	journal *os.File
	mood    tillMood
	keys    map[string]*tillKey
	orders  map[string]*tillOrder
	lines   map[string]*tillLine // by customer
	fences  map[int]int64        // by lane, the highest
	cutting int                  // connections to it are being cut, whatever their calls have come to
	cuts    []time.Time          // when that began and ended
	// wasCut tells of connections by the caller's address: a call may be read after its connection was cut, and even
	// after the call that was made in its place.
	wasCut func(from string) bool
	counts tillCounts
	wrong  []string // what no caller may ever do
}

// tillMood is how the till answers.
type tillMood string

const (
	tillWell       tillMood = "well"          // but for the share that always fails, see fate
	tillErrors     tillMood = "answers 500"   // and does nothing
	tillBusy       tillMood = "answers 503"   // with Retry-After, and does nothing
	tillResets     tillMood = "resets"        // and does nothing
	tillLoses      tillMood = "loses answers" // of what it has done
	tillSlow       tillMood = "slow"          // but in time
	tillTooSlow    tillMood = "too slow"      // it is done, and the caller has gone
	tillHangs      tillMood = "hangs"         // without doing anything
	tillSlowFor             = 700 * time.Millisecond
	tillTooSlowFor          = 2500 * time.Millisecond // above the caller's timeout
	tillTimeout             = "2s"                    // the caller's

	tillRefusedShare = 50  // every so many-th charge is refused for good
	tillOddShare     = 100 // every so many-th is made, and answered with what a caller cannot understand
	tillLostShare    = 100 // every so many-th answer is lost, in any mood
)

// tillKey is what became of an idempotency key.
type tillKey struct {
	body    string
	status  int // by which it was settled; 0 until then
	lost    bool
	from    string    // whence the last call came; not one that is late
	at      time.Time // of that
	fence   int64
	attempt int
}

// tillOrder is what an order has paid.
type tillOrder struct {
	customer, currency string
	charged, refunded  int64 // in minor units
	voided             bool  // no charge may come any more
}

// tillLine is the last settled call of a customer.
type tillLine struct{ lane, offset int }

// tillCounts is what the calls came to.
type tillCounts struct {
	calls, settled, charged, refused, odd, refunded int64
	failed, lost                                    int64 // answers

	// Calls of a settled key, by their reason: the answer was lost or bad, the lane has changed hands (another
	// fence), the caller says that it had no answer (a higher attempt). Nothing of these: wrong.
	afterLost, afterTakeover, afterRetry int64
	stale                                int64 // calls with a lower fence than their lane had before
}

func (c tillCounts) explained() int64 { return c.afterLost + c.afterTakeover + c.afterRetry }

// tillCall is a call, and a line of the journal, which the checker can read.
type tillCall struct {
	At       time.Time `json:"at"`
	Endpoint string    `json:"endpoint"`
	ID       string    `json:"id"`    // Idempotency-Key
	Order    string    `json:"order"` // lane:offset
	Attempt  int       `json:"attempt"`
	Fence    int64     `json:"fence"`
	Sender   string    `json:"sender"`
	Body     string    `json:"body"` // SHA-256 in hex
	OrderID  string    `json:"order_id"`
	Customer string    `json:"customer"`
	Currency string    `json:"currency"`
	Amount   int64     `json:"amount"` // in minor units
	Mood     tillMood  `json:"mood"`
	Settled  bool      `json:"settled"` // by this call
	Repeat   string    `json:"repeat,omitempty"`
	Status   int       `json:"status"` // of the answer; 0: none was given
	Executed bool      `json:"executed,omitempty"`
	Refused  bool      `json:"refused,omitempty"`
	Lost     bool      `json:"lost,omitempty"` // the answer, or it was none to use, as far as is known here
	Late     bool      `json:"late,omitempty"` // made before the call that was read before it

	lane, offset int
	from         string // the caller's address
}

func openTill(t testing.TB, folder string) *till {
	t.Helper()
	journal, err := os.Create(filepath.Join(folder, "calls.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	k := &till{
		journal: journal, mood: tillWell, keys: map[string]*tillKey{}, orders: map[string]*tillOrder{},
		lines: map[string]*tillLine{}, fences: map[int]int64{}, wasCut: func(string) bool { return false },
	}
	k.server = httptest.NewServer(http.HandlerFunc(k.serve))
	t.Cleanup(func() {
		k.be(tillWell)
		k.server.CloseClientConnections()
		k.server.Close()
		if err := journal.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// cutOff is told that connections are being cut: until the function that it returns is called, and for the
// calls before that, answers that were on their way are lost.
func (k *till) cutOff() (over func()) {
	note := func(change int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.cutting += change
		k.cuts = append(k.cuts, time.Now())
	}
	note(1)
	return func() { note(-1) }
}

// be makes the till behave in another way from now on.
func (k *till) be(mood tillMood) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mood = mood
}

func (k *till) count() tillCounts {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts
}

func (k *till) serve(w http.ResponseWriter, request *http.Request) {
	call, err := readTillCall(request)
	if err != nil {
		k.mu.Lock()
		k.wrong = append(k.wrong, err.Error())
		k.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	call.Mood = k.mood
	k.mu.Unlock()
	switch call.Mood {
	case tillHangs:
		<-request.Context().Done()
	case tillSlow:
		waitOr(request.Context().Done(), tillSlowFor)
	default:
	}
	k.mu.Lock()
	k.judge(&call)
	if !call.Lost && call.Status != 0 && request.Context().Err() != nil {
		call.Lost = true // the caller has gone before the answer
	}
	k.note(&call)
	k.mu.Unlock()
	if call.Mood == tillTooSlow {
		waitOr(request.Context().Done(), tillTooSlowFor)
	}
	if call.Status == 0 || call.Lost {
		panic(http.ErrAbortHandler) // the connection is reset
	}
	if call.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(call.Status)
	_, _ = fmt.Fprintf(w, "{\"order_id\":%q}\n", call.OrderID)
}

// waitOr waits, or returns when done is closed first.
func waitOr(done <-chan struct{}, duration time.Duration) {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}

func readTillCall(request *http.Request) (tillCall, error) {
	text, err := io.ReadAll(request.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // cut off before it was a call
	}
	header := request.Header
	call := tillCall{
		At: time.Now().UTC(), Endpoint: strings.TrimPrefix(request.URL.Path, "/"),
		ID: header.Get("Idempotency-Key"), Order: header.Get("Pawl-Order"), Sender: header.Get("Processor"),
		from: request.RemoteAddr,
	}
	var body struct {
		Operation string `json:"operation"`
		OrderID   string `json:"order_id"`
		Customer  string `json:"customer_id"`
		Currency  string `json:"currency"`
		Amount    string `json:"amount"`
	}
	lane, offset, _ := strings.Cut(call.Order, ":")
	var errs [5]error
	call.lane, errs[0] = strconv.Atoi(lane)
	call.offset, errs[1] = strconv.Atoi(offset)
	call.Attempt, errs[2] = strconv.Atoi(header.Get("Pawl-Attempt"))
	call.Fence, errs[3] = strconv.ParseInt(header.Get("Pawl-Fence"), 10, 64)
	errs[4] = json.Unmarshal(text, &body)
	for _, err := range errs {
		if err != nil {
			return call, fmt.Errorf("malformed call of %s: %w", call.Order, err)
		}
	}
	if want := map[string]string{"charge": "charges", "void": "refunds"}[body.Operation]; want != call.Endpoint || call.ID == "" {
		return call, fmt.Errorf("a %s %q came to %s", body.Operation, call.ID, call.Endpoint)
	}
	sum := sha256.Sum256(text)
	call.Body, call.OrderID, call.Customer, call.Currency = hex.EncodeToString(sum[:]), body.OrderID, body.Customer, body.Currency
	call.Amount, err = minor(body.Amount)
	return call, err
}

// minor reads an amount, which always has the decimals of its currency, as a whole number of the smallest unit.
func minor(amount string) (int64, error) {
	return strconv.ParseInt(strings.Replace(amount, ".", "", 1), 10, 64)
}

// share tells whether a text is among one of so many.
func share(of uint32, parts ...any) bool {
	hash := fnv.New32a()
	_, _ = fmt.Fprint(hash, parts...)
	return hash.Sum32()%of == 0
}

// judge does what a call asks for, and decides about its answer.
func (k *till) judge(call *tillCall) {
	k.counts.calls++
	if call.Fence < k.fences[call.lane] {
		k.counts.stale++
	}
	k.fences[call.lane] = max(k.fences[call.lane], call.Fence)
	key := k.keys[call.ID]
	if key == nil {
		key = &tillKey{body: call.Body}
		k.keys[call.ID] = key
	}
	if key.body != call.Body {
		k.accuse(call, "its key came with another body before")
	}
	nothing := call.Mood == tillErrors || call.Mood == tillBusy || call.Mood == tillResets || call.Mood == tillHangs
	switch {
	case key.status != 0:
		k.repeat(call, key)
		call.Status = key.status
	case !nothing:
		k.settle(call, key)
	}
	switch call.Mood {
	case tillErrors:
		call.Status = http.StatusInternalServerError
	case tillBusy:
		call.Status = http.StatusServiceUnavailable
	case tillResets, tillHangs:
		call.Status = 0
	case tillLoses, tillTooSlow:
		call.Lost = true
	default:
		call.Lost = share(tillLostShare, "lost ", call.ID, call.Attempt, call.Fence)
	}
	if nothing {
		k.counts.failed++
	}
}

// note writes a call down.
func (k *till) note(call *tillCall) {
	if call.Lost {
		k.counts.lost++
	}
	if key := k.keys[call.ID]; key.status != 0 && !call.Late { // a key tells of the call that was made last
		key.from, key.at = call.from, call.At
		key.lost = call.Lost || call.Status == 0 || call.Status >= http.StatusInternalServerError
		if call.Fence > key.fence {
			key.fence, key.attempt = call.Fence, call.Attempt
		} else if call.Fence == key.fence {
			key.attempt = max(key.attempt, call.Attempt)
		}
	}
	entry := *call
	if status := k.keys[call.ID].status; status != 0 {
		entry.Executed = status < http.StatusBadRequest
		entry.Refused = !entry.Executed
		entry.Lost = call.Lost || call.Status != status || k.wasCut(call.from)
	}
	line, err := json.Marshal(&entry)
	if err == nil {
		_, err = k.journal.Write(append(line, '\n'))
	}
	if err != nil {
		k.wrong = append(k.wrong, fmt.Sprintf("the journal has a hole: %v", err))
	}
}

// repeat finds out why a settled call came again.
func (k *till) repeat(call *tillCall, key *tillKey) {
	switch {
	case key.lost, k.cutting > 0, len(k.cuts) > 0 && k.cuts[len(k.cuts)-1].After(key.at), k.wasCut(key.from):
		call.Repeat = "lost"
		k.counts.afterLost++
	case call.Fence != key.fence:
		call.Repeat = "takeover"
		k.counts.afterTakeover++
	case call.Attempt > key.attempt:
		call.Repeat = "retry"
		k.counts.afterRetry++
	case k.wasCut(call.from):
		// Its bytes were on their way when its connection was cut, and its caller made it again on another: what was
		// read before it is the repeat. It stays the last call, else one cut would excuse two repeats.
		call.Repeat, call.Late = "lost", true
		k.counts.afterLost++
	default:
		call.Repeat = "unexplained"
		k.accuse(call, "it was made again for no reason")
	}
}

// settle decides a key for good.
func (k *till) settle(call *tillCall, key *tillKey) {
	call.Settled = true
	k.counts.settled++
	line := k.lines[call.Customer]
	switch {
	case line == nil:
		k.lines[call.Customer] = &tillLine{lane: call.lane, offset: call.offset}
	case line.lane != call.lane, call.offset <= line.offset:
		k.accuse(call, fmt.Sprintf("its customer's call %d:%d was made before", line.lane, line.offset))
	default:
		line.offset = call.offset
	}
	order := k.orders[call.OrderID]
	if order == nil {
		order = &tillOrder{customer: call.Customer, currency: call.Currency}
		k.orders[call.OrderID] = order
	}
	switch {
	case call.Endpoint == "refunds":
		k.counts.refunded++
		order.voided, order.refunded = true, order.charged
		key.status = http.StatusOK
	case order.voided:
		k.accuse(call, "its order was given back before")
		key.status = http.StatusGone
	case order.charged != 0:
		k.accuse(call, "its order is charged under another key")
		key.status = http.StatusGone
	case share(tillRefusedShare, "refused ", call.OrderID):
		k.counts.refused++
		key.status = http.StatusPaymentRequired
	default:
		k.counts.charged++
		order.charged = call.Amount
		key.status = http.StatusOK
		if share(tillOddShare, "odd ", call.OrderID) {
			k.counts.odd++
			key.status = http.StatusFound // to nowhere: nobody knows what that means for a charge
		}
	}
	call.Status = key.status
}

func (k *till) accuse(call *tillCall, what string) {
	k.wrong = append(k.wrong, fmt.Sprintf("call %s of effect %s (order %s, attempt %d, fence %d, by %s): %s",
		call.ID, call.Order, call.OrderID, call.Attempt, call.Fence, call.Sender, what))
}

// cutSoon tells whether connections were cut so soon after a call that its answer may be lost.
func (k *till) cutSoon(called time.Time) bool {
	at, _ := slices.BinarySearchFunc(k.cuts, called, time.Time.Compare)
	return at < len(k.cuts) && k.cuts[at].Sub(called) < tillTooSlowFor
}

// address is where the till listens.
func (k *till) address() string {
	listener := k.server.Listener
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
		return tcp.String()
	}
	return listener.Addr().String()
}
