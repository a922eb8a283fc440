package txn

import "time"

// Phase says what a lane is doing.
type Phase string

// The phases of a lane.
const (
	PhaseOpening Phase = "opening" // making its session and joining the group
	PhasePolling Phase = "polling" // waiting for records: idle on purpose
	PhaseWorking Phase = "working" // between poll and produce
	PhaseEnding  Phase = "ending"  // producing, flushing, ending the transaction
	PhaseBackoff Phase = "backoff" // waiting to try again after an abort or a lost session
	PhaseStopped Phase = "stopped"
)

// Phases lists them all, for metrics.
func Phases() []Phase {
	return []Phase{PhaseOpening, PhasePolling, PhaseWorking, PhaseEnding, PhaseBackoff, PhaseStopped}
}

// LaneStatus is a snapshot of one lane.
type LaneStatus struct {
	Lane       int                `json:"lane"`
	Phase      Phase              `json:"phase"`
	Since      time.Time          `json:"since"`          // of the phase
	Begun      time.Time          `json:"begun,omitzero"` // of the transaction in work, zero while there is none
	Joined     bool               `json:"joined"`         // a group session is up; it may own no partition
	Partitions map[string][]int32 `json:"partitions"`
	Paused     map[string][]int32 `json:"paused,omitempty"` // of the partitions, those that an operator paused
	Halted     []HaltedPartition  `json:"halted"`
	LastCommit time.Time          `json:"last_commit,omitzero"` // zero before the first
}

// HaltedPartition is a partition that waits for an operator.
type HaltedPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Error     string `json:"error"`
}

// Status is a snapshot of all lanes. The operations HTTP shows it as JSON.
type Status struct {
	Lanes []LaneStatus `json:"lanes"`
}

// Joined reports whether every lane is in the group.
func (s Status) Joined() bool {
	for _, lane := range s.Lanes {
		if !lane.Joined {
			return false
		}
	}
	return len(s.Lanes) > 0
}
