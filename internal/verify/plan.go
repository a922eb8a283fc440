package verify

import (
	"errors"
	"fmt"
	"time"

	"pawl/internal/message"
)

// Handler is a business rule, as the model applies it.
type Handler interface {
	Handle(in message.In, out *message.Batch) error
}

// Input is a topic that the application reads.
type Input struct {
	Topic   string
	TopicID [16]byte
	Handler Handler // nil: what is made of its records is not known, and only its lineage is checked
	// Compacted says that records may be gone from the midst of the log.
	Compacted bool
}

// Plan says what an application should do, and what was recorded of it.
type Plan struct {
	Application string
	Generation  int // highest replay generation that was ever used; ids of all from 0 on are ours

	Inputs      []Input
	Outputs     map[string]string // output name to topic
	Effects     string            // topic
	DeadLetters string            // topic
	Results     string            // topic; empty: results are not checked
	// Compacted are output topics that keep the last record of a key only: nothing is missed there.
	Compacted []string

	// Drained says that the system was at rest when it was recorded: everything that was begun has
	// ended, so that what is missing is lost and what is open hangs.
	Drained bool
	// Ledger says that the ledger was recorded, Journal that the calls of every endpoint were.
	Ledger, Journal bool
	// Restored says that the ledger went back in time: what was called or told since may have been
	// called again, and be told otherwise than the ledger has it.
	Restored bool
	// Overlaps says that one may have called under a tenure which had ended, and not known it: two processes ran under
	// one name, who are one owner for the ledger, or one was stopped between its last look at its lease and a call.
	Overlaps bool
	// Repeated are inputs that were processed again on purpose, or may have been: an operator or the start policy
	// set offsets back under the same replay generation. What was made of them may be committed more than once, and
	// behind what was made of later ones. Their effects may not be ingested twice.
	Repeated []Range
	// Shared says that others write to the output topics, too, or that the application once read other
	// inputs: what is of none of the inputs, or carries none of their ids, is not judged.
	Shared bool
	// Readers says that read_committed readers were recorded.
	Readers bool
	// ClockSkew is by how much the clocks of brokers and journal may differ.
	ClockSkew time.Duration

	Least Least // what must have happened, see Sanity

	Memory int    // bytes for what is being compared, beyond which it goes to files; 0: 64 MiB
	Dir    string // of these files; empty: the system's temporary directory
}

// Least is how much must have happened for a history to prove anything. Zero fields ask for nothing,
// but for inputs: at least one must have been judged, unless Idle.
type Least struct {
	Idle      bool
	Inputs    int64 // judged
	Committed int64 // transactions, by their end markers
	Aborted   int64
	Effects   int64
	Calls     int64
	Results   int64
	Reads     int64 // by each reader
}

const defaultMemory = 64 << 20

func (p *Plan) validate() error {
	var errs []error
	if p.Application == "" {
		errs = append(errs, errors.New("the application has no name"))
	}
	if len(p.Inputs) == 0 {
		errs = append(errs, errors.New("there is no input topic"))
	}
	if p.Generation < 0 {
		errs = append(errs, fmt.Errorf("the replay generation is %d", p.Generation))
	}
	if p.Journal && !p.Ledger {
		errs = append(errs, errors.New("a journal of calls can only be judged with the ledger"))
	}
	seen := map[string]bool{}
	for _, input := range p.Inputs {
		if seen[input.Topic] {
			errs = append(errs, fmt.Errorf("input topic %s is there twice", input.Topic))
		}
		seen[input.Topic] = true
	}
	if p.Memory == 0 {
		p.Memory = defaultMemory
	}
	return errors.Join(errs...)
}
