//go:build chaos && linux

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// purse is one customer's money in one currency.
type purse struct{ customer, currency string }

// placement is an order as it was placed: an order id may come twice with other terms.
type placement struct{ order, digest string }

// accounts adds up the money of all orders from three books that know nothing of each other: the events of
// the orders, the customers' double-entry ledger, and what the payment provider has done.
type accounts struct {
	placed   map[placement]orderEvent
	endings  map[placement][]string // final states
	journals map[string]string      // by id, the record: one that comes again must be the same and counts once
	posted   map[string]map[purse]int64
	wrong    []wrong
}

func newAccounts() *accounts {
	return &accounts{
		placed: map[placement]orderEvent{}, endings: map[placement][]string{}, journals: map[string]string{},
		posted: map[string]map[purse]int64{},
	}
}

func (a *accounts) accuse(kind, format string, args ...any) {
	a.wrong = append(a.wrong, wrong{kind, fmt.Sprintf(format, args...)})
}

// event takes a record of the priced orders.
func (a *accounts) event(r *kgo.Record) {
	e, err := decode[orderEvent](r)
	if err != nil {
		a.accuse("corrupt", "order event %d/%d: %v", r.Partition, r.Offset, err)
		return
	}
	at := placement{e.OrderID, e.Placement}
	if e.Status == "priced" {
		a.placed[at] = e // the same again where it was produced twice
		return
	}
	a.endings[at] = append(a.endings[at], e.Status)
}

// journal takes a record of the customers' ledger.
func (a *accounts) journal(r *kgo.Record) {
	j, err := decode[journalEntry](r)
	if err != nil {
		a.accuse("corrupt", "ledger entry %d/%d: %v", r.Partition, r.Offset, err)
		return
	}
	if before, again := a.journals[j.ID]; again {
		if before != string(r.Value) {
			a.accuse("money", "ledger entry %s came twice and differs", j.ID)
		}
		return
	}
	a.journals[j.ID] = string(r.Value)
	var sum int64
	for _, p := range j.Postings {
		amount, err := minor(p.Amount)
		if err != nil {
			a.accuse("corrupt", "ledger entry %s: %v", j.ID, err)
		}
		sum += amount
		if a.posted[p.Account] == nil {
			a.posted[p.Account] = map[purse]int64{}
		}
		a.posted[p.Account][purse{j.Customer, j.Currency}] += amount
	}
	if sum != 0 {
		a.accuse("money", "ledger entry %s sums to %d", j.ID, sum)
	}
}

// The final states of an order.
const (
	endConfirmed = "confirmed"
	endCancelled = "cancelled"
	endVoid      = "void" // a placement under an id that another one has
)

// conclude compares the books, for each order, for each customer and in total, and says in one line what
// was compared.
func (a *accounts) conclude(till *till, o *outcome) string {
	confirmed := map[purse]int64{}
	ended := map[string]string{} // orders
	states := map[string]int{}
	for at, event := range a.placed {
		states["placed"]++
		endings := a.endings[at]
		if len(endings) != 1 {
			a.accuse("money", "order %s (%s) has the final states %v, want one", at.order, at.digest, endings)
			continue
		}
		states[endings[0]]++
		if endings[0] == endVoid {
			continue
		}
		if other, twice := ended[at.order]; twice {
			a.accuse("money", "order %s is %s and %s", at.order, other, endings[0])
		}
		ended[at.order] = endings[0]
		if endings[0] == endConfirmed {
			total, err := minor(event.Total)
			if err != nil {
				a.accuse("corrupt", "order %s: %v", at.order, err)
			}
			confirmed[purse{event.Customer, event.Currency}] += total
		}
	}
	for at, endings := range a.endings {
		if _, known := a.placed[at]; !known {
			a.accuse("phantom", "order %s (%s) is %v and was never placed", at.order, at.digest, endings)
		}
	}
	charged, compensated := map[purse]int64{}, map[purse]int64{}
	for id, order := range till.orders {
		who := purse{order.customer, order.currency}
		charged[who] += order.charged
		compensated[who] += order.refunded
		if kept := order.charged > 0 && order.refunded == 0; kept != (ended[id] == endConfirmed) {
			a.accuse("money", "order %s is %q; charged %d, given back %d", id, ended[id], order.charged, order.refunded)
		}
	}
	for _, who := range everybody(charged, confirmed, a.posted["cash"], a.posted["receivable"]) {
		if charged[who] != confirmed[who]+compensated[who] {
			a.accuse("money", "%s was charged %d %s; confirmed are %d, given back %d", who.customer, charged[who], who.currency, confirmed[who], compensated[who])
		}
		if cash, owed := a.posted["cash"][who], a.posted["receivable"][who]; cash != confirmed[who] || owed != 0 {
			a.accuse("money", "the ledger of %s says %d %s paid and %d owed; confirmed are %d", who.customer, cash, who.currency, owed, confirmed[who])
		}
	}
	o.wrong = append(o.wrong, a.wrong...)
	return fmt.Sprintf("%v; charged %s = confirmed %s + given back %s", states, totals(charged), totals(confirmed), totals(compensated))
}

// everybody lists the purses of several books.
func everybody(books ...map[purse]int64) []purse {
	all := map[purse]bool{}
	for _, book := range books {
		for who := range book {
			all[who] = true
		}
	}
	return slices.Collect(maps.Keys(all))
}

// totals adds a book up by currency.
func totals(book map[purse]int64) string {
	sums := map[string]int64{}
	for who, amount := range book {
		sums[who.currency] += amount
	}
	var all []string
	for _, currency := range slices.Sorted(maps.Keys(sums)) {
		all = append(all, fmt.Sprintf("%d %s", sums[currency], currency))
	}
	return strings.Join(all, ", ")
}
