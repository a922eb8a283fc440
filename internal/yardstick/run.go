package yardstick

import "pawl/internal/load"

// CopyRun is one throughput run of one peer.
type CopyRun struct {
	Peer  string `json:"peer"`
	Round int    `json:"round"`
	Copied

	CPU          float64      `json:"cpu_s_per_million"`                  // of the processes, from their start to their end
	Broker       float64      `json:"broker_cpu_s_per_million,omitempty"` // in the same time; 0 where it isn't ours
	Peak         float64      `json:"peak_rss_mib"`                       // of the process that had most
	Transactions int64        `json:"transactions,omitempty"`             // where they were counted
	Markers      int64        `json:"markers,omitempty"`                  // of them in the output
	Tally        load.Tallied `json:"tally"`
}

// By names the peer.
func (run CopyRun) By() string { return run.Peer }

// WaitRun is one latency run of one peer: from the produce call of a record to its delivery to a
// read_committed reader of the output.
type WaitRun struct {
	Peer      string       `json:"peer"`
	Round     int          `json:"round"`
	Latency   load.Summary `json:"latency"`
	Scheduled load.Summary `json:"latency_from_schedule"` // from when the call was due
	CPU       float64      `json:"cpu_s_per_million"`
	Broker    float64      `json:"broker_cpu_s_per_million,omitempty"` // serves producer and reader too, the same for all
	Peak      float64      `json:"peak_rss_mib"`

	Transactions int64 `json:"transactions,omitempty"` // of the measured part, where they were counted
	Markers      int64 `json:"markers,omitempty"`      // of them in the output
}

// By names the peer.
func (run WaitRun) By() string { return run.Peer }
