package dispatch

// Status is a snapshot of a dispatcher. The operations HTTP shows it as JSON.
type Status struct {
	Lanes     []LaneStatus     `json:"lanes"`     // the assigned ones, by number
	Endpoints []EndpointStatus `json:"endpoints"` // by name
}

// LaneStatus is a snapshot of one lane. Only an owner knows what stands below Owner.
type LaneStatus struct {
	Lane     int32 `json:"lane"`
	Owner    bool  `json:"owner"`
	Epoch    int64 `json:"epoch"`
	Window   int   `json:"window"`   // intents in memory that are not settled
	InFlight int   `json:"inflight"` // calls
	Parked   int   `json:"parked"`   // intents outside the window
	Stowed   int   `json:"stowed"`   // parked intents that are not in memory either
	Low      int64 `json:"low"`      // every intent below is settled or parked
	Next     int64 `json:"next"`     // every intent below has been read
}

// State is that of a breaker.
type State string

// The states of a breaker.
const (
	Closed   State = "closed"
	HalfOpen State = "half-open" // some calls are let through to see
	Open     State = "open"      // no calls; no attempts are used up
)

// States lists them all, for metrics.
func States() []State { return []State{Closed, HalfOpen, Open} }

// EndpointStatus is a snapshot of one endpoint, over all lanes.
type EndpointStatus struct {
	Endpoint string `json:"endpoint"`
	InFlight int    `json:"inflight"`
	Limit    int    `json:"limit"` // of calls at once
	Breaker  State  `json:"breaker"`
	Paused   bool   `json:"paused"` // by an operator: no calls, no attempts are used up

	Saturation Saturation `json:"-"` // a metric has it, in seconds
}
