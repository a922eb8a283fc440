package dev

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Proof is what a demo found.
type Proof struct {
	Broker  string           `json:"broker"`
	Why     string           `json:"broker_choice"`
	Bare    string           `json:"no_ledger,omitempty"` // why effects are not called
	Took    time.Duration    `json:"-"`                   // written as took_seconds
	Inputs  int64            `json:"inputs"`
	Wrong   int64            `json:"wrong_inputs"` // of the inputs, by the generator's own count
	Kill    Kill             `json:"kill"`
	Effects EffectsProof     `json:"effects"`
	Topics  []TopicProof     `json:"topics"`
	Reasons map[string]int64 `json:"dead_letters_by_reason"`
	// Aborted counts transactions that wrote outputs and were aborted.
	Aborted int64 `json:"aborted_transactions"`
	// Faults is everything that keeps this from being a proof, in words.
	Faults []string `json:"faults"`
}

// Kill tells how one processor died and came back.
type Kill struct {
	Instance    string        `json:"instance"`
	Transaction string        `json:"transactional_id"` // was open, with outputs in the log
	State       string        `json:"state"`            // of the transaction, by the broker
	Partitions  []string      `json:"partitions"`       // of outputs, that held records of it
	Calls       int           `json:"calls_under_way"`  // taken by the endpoint and not answered
	Tries       int           `json:"tries"`            // how often the victim was frozen to look
	Recovered   time.Duration `json:"-"`                // from the restart of the process to its first commit
	Outage      time.Duration `json:"-"`                // from the kill to that commit

	at time.Time
}

// MarshalJSON adds the verdict, and writes durations in seconds.
func (p *Proof) MarshalJSON() ([]byte, error) {
	type plain Proof
	return json.Marshal(struct {
		Proven bool    `json:"proven"`
		Took   float64 `json:"took_seconds"`
		*plain
	}{p.Proven(), p.Took.Seconds(), (*plain)(p)})
}

// MarshalJSON writes durations in seconds.
func (k Kill) MarshalJSON() ([]byte, error) {
	type plain Kill
	return json.Marshal(struct {
		plain
		Recovered float64 `json:"recovered_seconds"`
		Outage    float64 `json:"outage_seconds"`
	}{plain(k), k.Recovered.Seconds(), k.Outage.Seconds()})
}

// Proven tells whether every input had its effect exactly once, through a kill in mid-transaction.
func (p *Proof) Proven() bool { return len(p.Faults) == 0 }

const reportWidth = 80

// Report is the proof for people, at most reportWidth columns wide where names are short.
func (p *Proof) Report() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-*s %s\n", nameWidth, name, fmt.Sprintf(format, args...))
	}
	b.WriteString("\nThe proof\n\n")
	line("kafka", "%s", wrap(p.Why, " "))
	line("broker", "%s", p.Broker)
	line("inputs", "%s orders, %s of them made wrong on purpose", thousands(p.Inputs), thousands(p.Wrong))
	line("killed", "processor %s by SIGKILL while its transaction %s was open,", p.Kill.Instance, p.Kill.Transaction)
	if records := "with records of it in " + counted(len(p.Kill.Partitions), "output partition"); p.charged() {
		line("", "%s, and %s under way", records, counted(p.Kill.Calls, "call"))
	} else {
		line("", "%s", records)
	}
	line("back", "it committed again %s after its restart, %s after the kill", seconds(p.Kill.Recovered), seconds(p.Kill.Outage))
	line("drained", "to lag 0; then every processor stopped with exit code 0")
	line("aborted", "%s, %s: in the log, seen by no reader",
		counted(int(p.Aborted), "transaction"), counted(int(p.abortedRecords()), "record"))
	line("refused", "%s", p.refused())
	for _, one := range p.effectsLines() {
		line(one[0], "%s", wrap(one[1], " "))
	}

	width := len("topic")
	for _, topic := range p.Topics {
		width = max(width, len(topic.Topic))
	}
	const row = "  %-*s %8s %8s %7s %7s %5s %8s %7s\n"
	fmt.Fprintf(&b, "\n"+row, width, "topic", "expected", "seen", "missing", "doubled", "wrong", "disorder", "aborted")
	var duplicates, missing int64
	for _, t := range p.Topics {
		fmt.Fprintf(&b, row, width, t.Topic, thousands(t.Expected), thousands(t.Seen), thousands(t.Missing), thousands(t.Duplicates),
			thousands(t.Altered+t.Unexpected), thousands(t.Disordered), thousands(t.Aborted))
		duplicates += t.Duplicates
		missing += t.Missing
	}
	b.WriteByte('\n')
	for _, fault := range p.Faults {
		fmt.Fprintf(&b, "  FAULT: %s\n", fault)
	}
	verdict := "every order counted exactly once"
	if p.charged() {
		verdict = "every order and charge counted exactly once"
	}
	if !p.Proven() {
		verdict = "NOT PROVEN"
	}
	fmt.Fprintf(&b, "  duplicates %s, missing %s: %s (%s)\n", thousands(duplicates), thousands(missing), verdict, seconds(p.Took))
	return b.String()
}

// charged tells whether there was a ledger and effects became calls.
func (p *Proof) charged() bool { return p.Effects.Calls != nil }

// effectsLines are the lines about the ledger, or the one about its absence.
func (p *Proof) effectsLines() [][2]string {
	at := slices.IndexFunc(p.Topics, func(t TopicProof) bool { return t.Role == roleResults })
	if !p.charged() || at < 0 {
		return [][2]string{{"effects", thousands(p.Effects.Committed) + " committed and not called: " + p.Bare}}
	}
	return p.Effects.lines(&p.Topics[at])
}

func (p *Proof) abortedRecords() (n int64) {
	for _, topic := range p.Topics {
		n += topic.Aborted
	}
	return n
}

// refused lists the dead letters by reason, the most frequent first.
func (p *Proof) refused() string {
	reasons := slices.SortedFunc(maps.Keys(p.Reasons), func(a, b string) int {
		if p.Reasons[a] != p.Reasons[b] {
			return int(p.Reasons[b] - p.Reasons[a])
		}
		return strings.Compare(a, b)
	})
	if len(reasons) == 0 {
		return "none"
	}
	var parts []string
	for _, reason := range reasons {
		parts = append(parts, fmt.Sprintf("%s %s", reason, thousands(p.Reasons[reason])))
	}
	return wrap(strings.Join(parts, ", "), ", ")
}

// wrap breaks the text of a report's line at separators where it gets wider than 80 columns.
func wrap(text, separator string) string {
	const indent = 2 + nameWidth + 1
	var b strings.Builder
	column := indent
	for i, part := range strings.Split(text, separator) {
		if i > 0 {
			if column+2*len(separator)+len(part) > reportWidth {
				b.WriteString(strings.TrimRight(separator, " ") + "\n" + strings.Repeat(" ", indent))
				column = indent
			} else {
				b.WriteString(separator)
				column += len(separator)
			}
		}
		b.WriteString(part)
		column += len(part)
	}
	return b.String()
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return thousands(int64(n)) + " " + what + "s"
}
