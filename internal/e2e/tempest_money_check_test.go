//go:build chaos && linux

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/verify"
)

// bookkeeping is a small run as the accounts get to see it: one order confirmed, one refused, one charged
// and given back.
type bookkeeping struct {
	events, journals []string
	orders           map[string]*tillOrder
}

func goodBooks() *bookkeeping {
	b := &bookkeeping{orders: map[string]*tillOrder{}}
	b.order("o-1", "confirmed", "payment")
	b.order("o-2", "cancelled", "reversal")
	b.order("o-3", "cancelled", "reversal")
	b.orders["o-1"] = &tillOrder{customer: "c", currency: "EUR", charged: 1200}
	b.orders["o-2"] = &tillOrder{customer: "c", currency: "EUR"}
	b.orders["o-3"] = &tillOrder{customer: "c", currency: "EUR", charged: 1200, refunded: 1200, voided: true}
	return b
}

// order adds what is written of an order of 12.00 that ends in some way.
func (b *bookkeeping) order(id, end, entry string) {
	event := func(status string) string {
		return fmt.Sprintf(`{"order_id":%q,"customer_id":"c","currency":"EUR","total":"12.00","placement":"p","status":%q}`, id, status)
	}
	journal := func(kind, postings string) string {
		return fmt.Sprintf(`{"journal_id":"%s/p/%s","customer_id":"c","currency":"EUR","postings":[%s]}`, id, kind, postings)
	}
	post := func(account, amount string) string { return fmt.Sprintf(`{"account":%q,"amount":%q}`, account, amount) }
	b.events = append(b.events, event("priced"), event(end))
	b.journals = append(b.journals, journal("sale", post("receivable", "12.00")+","+post("revenue", "-12.00")))
	if entry == "payment" {
		b.journals = append(b.journals, journal(entry, post("cash", "12.00")+","+post("receivable", "-12.00")))
	} else {
		b.journals = append(b.journals, journal(entry, post("receivable", "-12.00")+","+post("revenue", "12.00")))
	}
}

func (b *bookkeeping) judge() []string {
	a, o := newAccounts(), &outcome{}
	for i, text := range b.events {
		a.event(&kgo.Record{Offset: int64(i), Value: []byte(text)})
	}
	for i, text := range b.journals {
		a.journal(&kgo.Record{Offset: int64(i), Value: []byte(text)})
	}
	a.conclude(&till{orders: b.orders}, o)
	var all []string
	for _, one := range o.wrong {
		all = append(all, one.kind+": "+one.text)
	}
	return all
}

// A check of money that sees nothing would make every tempest pass. Each of these books is wrong in one way.
func TestAccountsFindWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(b *bookkeeping)
		want  string // part of what is found; empty: nothing may be
	}{
		"all is well":                {func(*bookkeeping) {}, ""},
		"placed twice, counted once": {func(b *bookkeeping) { b.events = append(b.events, b.events[0]) }, ""},
		"entry twice, counted once":  {func(b *bookkeeping) { b.journals = append(b.journals, b.journals[1]) }, ""},
		"two final states": {func(b *bookkeeping) {
			b.events = append(b.events, strings.Replace(b.events[1], "confirmed", "cancelled", 1))
		}, "has the final states"},
		"the same state twice": {func(b *bookkeeping) { b.events = append(b.events, b.events[1]) }, "has the final states"},
		"no final state":       {func(b *bookkeeping) { b.events = slices.Delete(b.events, 1, 2) }, "has the final states"},
		"two placements, both with an end": {func(b *bookkeeping) {
			b.events = append(b.events, strings.Replace(b.events[0], `"p"`, `"q"`, 1), strings.Replace(b.events[1], `"p"`, `"q"`, 1))
		}, "is confirmed and confirmed"},
		"never placed":               {func(b *bookkeeping) { b.events = b.events[1:] }, "was never placed"},
		"charged and not confirmed":  {func(b *bookkeeping) { b.orders["o-2"].charged = 1200 }, "was charged"},
		"confirmed and not charged":  {func(b *bookkeeping) { b.orders["o-1"].charged = 0 }, "was charged"},
		"a cent too much":            {func(b *bookkeeping) { b.orders["o-1"].charged = 1201 }, "was charged 2401 EUR"},
		"not given back":             {func(b *bookkeeping) { b.orders["o-3"].refunded = 0 }, "was charged"},
		"ledger without the payment": {func(b *bookkeeping) { b.journals = slices.Delete(b.journals, 1, 2) }, "0 EUR paid and 1200 owed"},
		"ledger without a reversal":  {func(b *bookkeeping) { b.journals = slices.Delete(b.journals, 3, 4) }, "1200 owed"},
		"entry twice and different": {func(b *bookkeeping) {
			b.journals = append(b.journals, strings.Replace(b.journals[1], "12.00", "13.00", 2))
		}, "came twice and differs"},
		"entry that does not sum to 0": {func(b *bookkeeping) { b.journals[0] = strings.Replace(b.journals[0], "-12.00", "-11.00", 1) }, "sums to 100"},
		"no JSON":                      {func(b *bookkeeping) { b.events[0] = "{" }, "corrupt"},
		"compensated at another customer's expense": {func(b *bookkeeping) {
			b.orders["o-1"].customer = "d"
		}, "d was charged 1200 EUR; confirmed are 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			books := goodBooks()
			test.spoil(books)
			found := strings.Join(books.judge(), "\n")
			if (test.want == "") != (found == "") || !strings.Contains(found, test.want) {
				t.Errorf("found %q, want %q", found, test.want)
			}
		})
	}
}

// ring makes a till judge calls without a network.
func ring(t *testing.T, calls ...tillCall) (*till, []tillCall) {
	t.Helper()
	k := openTill(t, t.TempDir())
	for i := range calls {
		k.judge(&calls[i])
		k.note(&calls[i])
	}
	return k, calls
}

// Calls that no caller may make are wrong, and a repeated call has the reason that it has.
func TestTillFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	charge := func(change func(c *tillCall)) tillCall {
		c := tillCall{Endpoint: "charges", ID: "k-1", Order: "0:1", offset: 1, Attempt: 1, Fence: 1, Body: "b", OrderID: "o-1", Customer: "c", Currency: "EUR", Amount: 1200, Mood: tillWell}
		change(&c)
		return c
	}
	same := func(*tillCall) {}
	next := func(c *tillCall) { c.ID, c.Order, c.offset, c.OrderID = "k-2", "0:2", 2, "o-2" }
	for name, test := range map[string]struct {
		calls  []tillCall
		wrong  string
		repeat string // of the last call
	}{
		"two orders":         {[]tillCall{charge(same), charge(next)}, "", ""},
		"made again":         {[]tillCall{charge(same), charge(same)}, "no reason", "unexplained"},
		"lost":               {[]tillCall{charge(func(c *tillCall) { c.Mood = tillLoses }), charge(same)}, "", "lost"},
		"answered badly":     {[]tillCall{charge(same), charge(func(c *tillCall) { c.Attempt, c.Mood = 2, tillErrors }), charge(func(c *tillCall) { c.Attempt = 2 })}, "", "lost"},
		"taken over":         {[]tillCall{charge(same), charge(func(c *tillCall) { c.Fence = 2 })}, "", "takeover"},
		"late, of the old":   {[]tillCall{charge(func(c *tillCall) { c.Fence = 2 }), charge(same)}, "", "takeover"},
		"tried again":        {[]tillCall{charge(same), charge(func(c *tillCall) { c.Attempt = 2 })}, "", "retry"},
		"another body":       {[]tillCall{charge(same), charge(func(c *tillCall) { c.Body, c.Attempt = "other", 2 })}, "another body", "retry"},
		"out of order":       {[]tillCall{charge(next), charge(same)}, "was made before", ""},
		"in two lanes":       {[]tillCall{charge(same), charge(func(c *tillCall) { next(c); c.lane = 1 })}, "was made before", ""},
		"charged twice":      {[]tillCall{charge(same), charge(func(c *tillCall) { next(c); c.OrderID = "o-1" })}, "under another key", ""},
		"charge after void":  {[]tillCall{charge(func(c *tillCall) { c.Endpoint = "refunds" }), charge(func(c *tillCall) { next(c); c.OrderID = "o-1" })}, "given back before", ""},
		"nothing was done":   {[]tillCall{charge(func(c *tillCall) { c.Mood = tillErrors }), charge(same)}, "", ""},
		"void of the charge": {[]tillCall{charge(same), charge(func(c *tillCall) { next(c); c.OrderID, c.Endpoint = "o-1", "refunds" })}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, calls := ring(t, test.calls...)
			wrong := strings.Join(k.wrong, "\n")
			if (test.wrong == "") != (wrong == "") || !strings.Contains(wrong, test.wrong) {
				t.Errorf("wrong is %q, want %q", wrong, test.wrong)
			}
			if last := calls[len(calls)-1]; last.Repeat != test.repeat {
				t.Errorf("the last call is a repeat by %q, want %q", last.Repeat, test.repeat)
			}
		})
	}
	cut := openTill(t, t.TempDir())
	over := cut.cutOff()
	for _, call := range []tillCall{charge(func(c *tillCall) { c.At = time.Now() }), charge(same)} {
		cut.judge(&call)
		cut.note(&call)
	}
	over()
	if cut.counts.afterLost != 1 || len(cut.wrong) > 0 {
		t.Errorf("a call that came again while connections were cut is wrong: %q", cut.wrong)
	}
	k, _ := ring(t, charge(same), charge(func(c *tillCall) { next(c); c.OrderID, c.Endpoint = "o-1", "refunds" }))
	if order := k.orders["o-1"]; order.charged != 1200 || order.refunded != 1200 || k.keys["k-2"].status != http.StatusOK {
		t.Errorf("the order was charged %d and given back %d", order.charged, order.refunded)
	}
}

// A connection is cut while the bytes of a call on it are still on their way; its caller makes the call again on another,
// and either may be read first. Each cut excuses one call that came again: one more is a real duplicate.
func TestTillExcusesOneRepeatPerConnectionThatWasCut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		from    string // of each call of one key, as they were read; those in capitals were cut
		late    string // which were read after the one made in their place
		excused int64
		wrong   int
	}{
		"none was cut":                      {"ab", "", 0, 1},
		"read as they were made":            {"Ab", "", 1, 0},
		"the repeat is read first":          {"bA", "A", 1, 0},
		"as made, and a duplicate":          {"Abc", "", 1, 1},
		"repeat first, and a duplicate":     {"bAc", "A", 1, 1},
		"repeat first, and itself again":    {"bAb", "A", 1, 1},
		"a duplicate, and the first late":   {"bcA", "A", 1, 1},
		"cut twice, as made":                {"ABc", "", 2, 0},
		"cut twice, the second first":       {"BAc", "", 2, 0},
		"cut twice, the last first":         {"cBA", "BA", 2, 0},
		"cut twice, the last between":       {"AcB", "B", 2, 0},
		"cut twice, as made, and another":   {"ABcd", "", 2, 1},
		"cut twice, last first and another": {"cBAd", "BA", 2, 1},
		"cut twice, mixed, and another":     {"BAcd", "", 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := openTill(t, t.TempDir())
			k.wasCut = func(from string) bool { return from >= "A" && from <= "Z" }
			for from := range strings.SplitSeq(test.from, "") {
				call := tillCall{Endpoint: "charges", ID: "k-1", Order: "0:1", offset: 1, Attempt: 1, Fence: 1, Body: strings.Repeat("0b", 32), OrderID: "o-1", Customer: "c", Mood: tillWell, from: from}
				k.judge(&call)
				k.note(&call)
			}
			if k.counts.afterLost != test.excused || len(k.wrong) != test.wrong {
				t.Errorf("%d calls are excused and wrong is %q, want %d and %d", k.counts.afterLost, k.wrong, test.excused, test.wrong)
			}
			wantNoted(t, k, test.from, test.late)
		})
	}
}

// wantNoted holds the journal, by which the exactly-once checker judges the same calls, against whence they came.
func wantNoted(t *testing.T, k *till, from, late string) {
	t.Helper()
	journal, err := os.Open(k.journal.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	read := 0
	if err := verify.ReadJournal(journal, func(call *verify.Call) error {
		at := from[read : read+1]
		read++
		if call.Lost != k.wasCut(at) || call.Late != strings.Contains(late, at) {
			t.Errorf("the journal has call %d as lost: %t, late: %t", read, call.Lost, call.Late)
		}
		return nil
	}); err != nil || read != len(from) {
		t.Errorf("the journal has %d calls, want %d: %v", read, len(from), err)
	}
}

// What another connection suffers says nothing of a call that came again.
func TestTillAsksOnlyOfTheConnectionsOfTheTwoCalls(t *testing.T) {
	t.Parallel()
	k := openTill(t, t.TempDir())
	k.wasCut = func(from string) bool { return from == "elsewhere" }
	for _, call := range []tillCall{
		{ID: "k-1", Customer: "c", offset: 1, from: "elsewhere", OrderID: "o-1", Mood: tillWell},
		{ID: "k-2", Customer: "d", offset: 2, from: "a", OrderID: "o-2", Mood: tillWell},
		{ID: "k-2", Customer: "d", offset: 2, from: "b", OrderID: "o-2", Mood: tillWell},
	} {
		k.judge(&call)
		k.note(&call)
	}
	if len(k.wrong) != 1 {
		t.Errorf("wrong is %q, want the call that came again", k.wrong)
	}
}
