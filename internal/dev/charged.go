package dev

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// EffectsProof compares the effects that were committed with the calls that an endpoint saw and with
// the result events that came back. How many events there are is in the TopicProof of their topic.
type EffectsProof struct {
	Committed int64            `json:"committed"`
	Calls     *EndpointSummary `json:"calls"`             // null where there is no ledger
	Never     int64            `json:"never_called"`      // effects that no call has settled
	Foreign   int64            `json:"foreign_calls"`     // calls for no committed effect, or with another key or other bytes
	Results   map[string]int64 `json:"results_by_status"` // of events that are as they should be
}

// ledgerModel knows which calls and result events there must be. It is told all committed effects
// first, then all calls, then all events.
type ledgerModel struct {
	effects map[string]*asked // by lane:offset
	calls   int64
	summary EndpointSummary
	proof   EffectsProof
	events  TopicProof
	last    map[string]int64 // by lane and key: the offset of the last effect whose event was seen
}

// asked is a committed effect and what became of it.
type asked struct {
	id, endpoint, business, source string
	key                            string
	body                           [sha256.Size]byte
	status                         int // by which the endpoint settled it, 0 where it has not
	told                           bool
}

func newLedgerModel(resultsTopic string) *ledgerModel {
	return &ledgerModel{
		effects: make(map[string]*asked), last: make(map[string]int64),
		events: TopicProof{Role: roleResults, Topic: resultsTopic},
		proof:  EffectsProof{Results: make(map[string]int64)},
	}
}

// effect takes a record of the effects topic as a reader found it.
func (l *ledgerModel) effect(record *kgo.Record) {
	one := &asked{key: string(record.Key), body: sha256.Sum256(record.Value)}
	for _, header := range record.Headers {
		switch header.Key {
		case message.HeaderID:
			one.id = string(header.Value)
		case message.HeaderEndpoint:
			one.endpoint = string(header.Value)
		case message.HeaderBusinessKey:
			one.business = string(header.Value)
		case message.HeaderSource:
			one.source = string(header.Value)
		}
	}
	l.effects[orderOf(record.Partition, record.Offset)] = one
	l.proof.Committed++
}

// orderOf names an effect as Pawl-Order does.
func orderOf(lane int32, offset int64) string {
	return strconv.Itoa(int(lane)) + ":" + strconv.FormatInt(offset, 10)
}

// call takes a call as the endpoint wrote it down.
func (l *ledgerModel) call(call ChargeCall) {
	l.calls++
	effect := l.effects[call.Order]
	if effect == nil || effect.id != call.ID || hex.EncodeToString(effect.body[:]) != call.Body {
		l.proof.Foreign++
		return
	}
	if call.Settled {
		effect.status = call.Status
	}
}

// result takes a record of the results topic as a reader found it. Records of one partition come in
// order.
func (l *ledgerModel) result(record *kgo.Record) {
	l.events.Seen++
	var event struct {
		EffectID    string `json:"effect_id"`
		Lane        int32  `json:"lane"`
		Offset      int64  `json:"offset"`
		Source      string `json:"source"`
		Endpoint    string `json:"endpoint"`
		BusinessKey string `json:"business_key"`
		Status      string `json:"status"`
		HTTPStatus  int    `json:"http_status"`
		Request     struct {
			Body []byte `json:"body"`
		} `json:"request"`
	}
	if json.Unmarshal(record.Value, &event) != nil {
		l.events.Altered++
		return
	}
	effect := l.effects[orderOf(event.Lane, event.Offset)]
	switch {
	case effect == nil:
		l.events.Unexpected++
		return
	case effect.told:
		l.events.Duplicates++
		return
	}
	effect.told = true
	want := *effect
	got := asked{
		id: event.EffectID, endpoint: event.Endpoint, business: event.BusinessKey, source: event.Source,
		key: string(record.Key), body: sha256.Sum256(event.Request.Body), status: event.HTTPStatus, told: true,
	}
	if got != want || event.Status != fateOf(want.status) || record.Partition != event.Lane {
		l.events.Altered++
	} else {
		l.proof.Results[event.Status]++
	}
	line := strconv.Itoa(int(event.Lane)) + "\x00" + effect.key
	if last, seen := l.last[line]; seen && event.Offset < last {
		l.events.Disordered++
		return
	}
	l.last[line] = event.Offset
}

// fateOf is what the endpoint's answer makes of an effect.
func fateOf(status int) string {
	if status == http.StatusOK {
		return fateDone
	}
	return fateDead
}

// The fates that this endpoint can bring about, by their names in result events.
const (
	fateDone = "done"
	fateDead = "dead"
)

// conclude compares; faults are those between effects and calls.
func (l *ledgerModel) conclude() (results TopicProof, effects EffectsProof, faults []string) {
	events, proof := l.events, l.proof
	summary := l.summary
	proof.Calls = &summary
	events.Expected = proof.Committed
	for _, effect := range l.effects {
		if !effect.told {
			events.Missing++
		}
		if effect.status == 0 {
			proof.Never++
		}
	}
	if l.calls != summary.Calls {
		faults = append(faults, fmt.Sprintf("the endpoint counts %s calls and has written down %s", thousands(summary.Calls), thousands(l.calls)))
	}
	return events, proof, append(faults, proof.faults()...)
}

func (e *EffectsProof) faults() []string {
	var faults []string
	for _, one := range []struct {
		count int64
		what  string
	}{
		{e.Never, "effects were never carried out"},
		{e.Foreign, "calls were made for no committed effect, or with another key or other bytes"},
		{e.Calls.Malformed, "calls were malformed"},
		{e.Calls.Unexplained, "calls were repeated without a reason"},
		{e.Calls.Mismatched, "calls used a key again with another body"},
		{e.Calls.ChargedTwice, "orders were charged twice"},
		{e.Calls.OrderViolations, "charges came before an earlier one of their customer"},
	} {
		if one.count > 0 {
			faults = append(faults, thousands(one.count)+" "+one.what)
		}
	}
	return faults
}

// lines are those of the report, by name and text.
func (e *EffectsProof) lines(results *TopicProof) [][2]string {
	c := e.Calls
	return [][2]string{
		{"effects", fmt.Sprintf("%s committed: %s charged, %s declined, %s never called", thousands(e.Committed),
			thousands(c.Charged), thousands(c.Declined), thousands(e.Never))},
		{"calls", fmt.Sprintf("%s: %s answered 500 or 503, %s answers lost, %s late", thousands(c.Calls),
			thousands(c.Failed), thousands(c.Lost), thousands(c.Late))},
		{"repeated", fmt.Sprintf("%s after the charge was made: %s for a lost or failed answer, %s for the kill, %s for a late answer, %s unexplained",
			counted(int(c.Duplicates), "call"), thousands(c.AfterLost), thousands(c.AfterDeath), thousands(c.AfterRetry), thousands(c.Unexplained))},
		{"order", thousands(c.OrderViolations) + " violations: each customer was charged in the order of orders"},
		{"results", fmt.Sprintf("%s relayed: %s confirmed, %s cancelled", thousands(results.Seen),
			counted(int(e.Results[fateDone]), "order"), thousands(e.Results[fateDead]))},
	}
}
