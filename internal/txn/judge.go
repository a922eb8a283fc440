package txn

import "time"

// end is everything that decides what happens after a transaction.
type end struct {
	wanted       bool  // we asked for a commit
	committed    bool  // the broker said so
	offsetsEqual bool  // after wanted and not committed: the broker's offsets are the session's
	err          error // of End
	stale        bool  // the client knows a topic that is no more, and will not learn of the one that has its name now
	fences       int   // takeovers of our name within the last minute
}

// verdict is what a lane does next.
type verdict int

const (
	advance verdict = iota // committed: go on with the next batch
	redo                   // aborted: the session has rewound, the same input comes again
	rebuild                // the outcome is unknown: discard the session and join again
	exit                   // another process has our name: do not fight it
)

func (v verdict) String() string {
	return [...]string{"advance", "redo", "rebuild", "exit"}[v]
}

// judge is the whole of rules 2, 3 and 4.
func judge(end end) verdict {
	switch {
	case end.fences >= fencesMax:
		return exit
	case end.err != nil:
		return rebuild // nobody knows the outcome: this session must not be used again
	case end.committed:
		return advance
	case end.wanted && !end.offsetsEqual:
		return rebuild // it may have committed after all
	case end.stale:
		return rebuild // it is aborted; but with this session every other would be
	default:
		return redo
	}
}

const (
	fencesMax    = 3
	fencesWithin = time.Minute
)

// fences counts takeovers of a lane's name. One is a restart or a transaction that ran into its
// timeout; three within a minute are a twin that takes the name back each time we do.
type fences struct {
	at []time.Time
}

func (f *fences) add(now time.Time) {
	f.at = append(f.at, now)
}

func (f *fences) count(now time.Time) int {
	for len(f.at) > 0 && now.Sub(f.at[0]) >= fencesWithin {
		f.at = f.at[1:]
	}
	return len(f.at)
}
