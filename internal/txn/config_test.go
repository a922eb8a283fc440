package txn

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// validConfig is what Validate has nothing to say about.
func validConfig() Config {
	return Config{
		Application: "app", Instance: "one", Group: "app", Protocol: ProtocolClassic,
		SessionTimeout: 20 * time.Second, Heartbeat: 3 * time.Second, RebalanceTimeout: time.Minute,
		Start: StartEarliest, Routes: []Route{{Topics: []string{inTopic}, Name: "copy", Handler: copyHandler{}}},
		Outputs: map[string]string{"out": outTopic}, Endpoints: []string{"payments"},
		EffectsTopic: effectsTopic, DeadLetterTopic: deadTopic, ControlTopic: controlTopic,
		RecordsMax: 5000, BytesMax: 8 << 20, IntervalMin: 5 * time.Millisecond, Timeout: 30 * time.Second,
		HandlerTimeout: 10 * time.Second, DrainTimeout: 25 * time.Second, Compression: "none",
	}
}

func TestValidateNamesTheOperatorsKey(t *testing.T) {
	t.Parallel()
	if err := validConfig().Validate(); err != nil {
		t.Fatalf("a valid configuration: %v", err)
	}
	copying := func(topics ...string) Route { return Route{Topics: topics, Name: "copy", Handler: copyHandler{}} }
	for name, c := range map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"no application":         {func(c *Config) { c.Application = "" }, `application is ""`},
		"application with space": {func(c *Config) { c.Application = "a b" }, `application is "a b"`},
		"long application":       {func(c *Config) { c.Application = strings.Repeat("a", 201) }, `application is "aaa`},
		"no instance":            {func(c *Config) { c.Instance = "" }, `instance is ""`},
		"instance with slash":    {func(c *Config) { c.Instance = "a/b" }, `instance is "a/b"`},
		"no group":               {func(c *Config) { c.Group = "" }, `group is ""`},
		"protocol":               {func(c *Config) { c.Protocol = "eager" }, `kafka.protocol is "eager"`},
		"start":                  {func(c *Config) { c.Start = "" }, `input.start is ""`},
		"no routes":              {func(c *Config) { c.Routes = nil }, `routes is empty`},
		"route without handler":  {func(c *Config) { c.Routes = []Route{copying("a"), {Topics: []string{"b"}}} }, `routes.1 has no handler`},
		"topic twice":            {func(c *Config) { c.Routes = []Route{copying("a"), copying("b", "a")} }, `routes.1.topics: "a"`},
		"topic twice in one":     {func(c *Config) { c.Routes = []Route{copying("a", "a")} }, `routes.0.topics: "a"`},
		"no dead-letter topic":   {func(c *Config) { c.DeadLetterTopic = "" }, `dead-letter`},
		"no control topic":       {func(c *Config) { c.ControlTopic = "" }, `control topic`},
		"no effects topic":       {func(c *Config) { c.EffectsTopic = "" }, `endpoints are configured`},
		"lanes below":            {func(c *Config) { c.Lanes = -1 }, `txn.lanes is -1, want 0..64`},
		"lanes above":            {func(c *Config) { c.Lanes = lanesMax + 1 }, `txn.lanes is 65, want 0..64`},
		"records below":          {func(c *Config) { c.RecordsMax = -1 }, `txn.records_max is -1`},
		"records above":          {func(c *Config) { c.RecordsMax = recordsCap + 1 }, `txn.records_max is 100001`},
		"bytes":                  {func(c *Config) { c.BytesMax = 1023 }, `txn.bytes_max is 1023`},
		"interval below":         {func(c *Config) { c.IntervalMin = -1 }, `txn.interval_min is -1ns`},
		"interval above":         {func(c *Config) { c.IntervalMin = time.Second + 1 }, `txn.interval_min is 1.000000001s`},
		"handler timeout":        {func(c *Config) { c.HandlerTimeout = 99 * time.Millisecond }, `txn.handler_timeout is 99ms`},
		"rule 10, handlers": {
			func(c *Config) { c.HandlerTimeout = 13*time.Second + 1 },
			`must be less than half of txn.timeout (30s): raise txn.timeout to 30.000000002s or lower txn.handler_timeout`,
		},
		"rule 10, transaction":  {func(c *Config) { c.Timeout = 24*time.Second - 2 }, `txn.handler_timeout (10s)`},
		"drain timeout":         {func(c *Config) { c.DrainTimeout = time.Second - 1 }, `txn.drain_timeout is 999.999999ms`},
		"rule 10, heartbeat":    {func(c *Config) { c.Heartbeat = c.SessionTimeout/3 + 1 }, `kafka.heartbeat (6.666666667s) x 3 must not exceed kafka.session_timeout (20s)`},
		"no heartbeat":          {func(c *Config) { c.Heartbeat = 0 }, `kafka.heartbeat (0s)`},
		"rule 10, rebalance":    {func(c *Config) { c.RebalanceTimeout = 15*time.Second - 1 }, `kafka.rebalance_timeout is 14.999999999s, want at least half of txn.timeout`},
		"compression":           {func(c *Config) { c.Compression = "gzip" }, `kafka.compression is "gzip"`},
		"compression not given": {func(c *Config) { c.Compression = "" }, `kafka.compression is ""`},
	} {
		c, config := c, validConfig()
		c.spoil(&config)
		err := config.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
			continue
		}
		if joined, ok := errors.AsType[interface {
			error
			Unwrap() []error
		}](err); !ok || len(joined.Unwrap()) != 1 {
			t.Errorf("%s: one mistake gives more than one problem: %v", name, err)
		}
	}
}

// An operator corrects all of them at once, and sees the same text in every run.
func TestValidateReportsEverythingInOneOrder(t *testing.T) {
	t.Parallel()
	err := Config{Lanes: -1, RecordsMax: -1, BytesMax: 1, IntervalMin: -1}.Validate()
	if err == nil {
		t.Fatal("an empty configuration is valid")
	}
	for _, key := range []string{
		"application", "instance", "group", "kafka.protocol", "input.start", "routes", "dead-letter", "txn.lanes", "txn.records_max",
		"txn.bytes_max", "txn.interval_min", "txn.handler_timeout", "txn.timeout", "txn.drain_timeout", "kafka.heartbeat", "kafka.compression",
	} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not reported: %v", key, err)
		}
	}
	for range 20 {
		if again := (Config{Lanes: -1, RecordsMax: -1, BytesMax: 1, IntervalMin: -1}).Validate(); again.Error() != err.Error() {
			t.Fatalf("first\n%v\nthen\n%v", err, again)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New takes a configuration that is not valid")
	}
}

// Rule 10, as inequalities between what is really waited for, at and around every border.
func TestRule10TimeoutsOfAnyValidConfigFitIntoTheTransaction(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		span := func(name string, most time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(-1, int64(most)).Draw(t, name))
		}
		c := validConfig()
		c.Timeout = span("timeout", 15*time.Minute)
		c.HandlerTimeout = c.Timeout/2 - endSlackMin + span("around", 2) - span("below", 10*time.Minute)
		c.SessionTimeout = span("session", time.Minute)
		c.Heartbeat = c.SessionTimeout/3 + span("beat", 2)
		c.RebalanceTimeout = c.Timeout/2 + span("rebalance", 2)
		if c.Validate() != nil {
			return
		}
		if c.flushTimeout() <= 0 || c.endTimeout() <= 0 || c.flushTimeout()+c.endTimeout() < endSlackMin-20*time.Millisecond {
			t.Fatalf("flush has %s and end %s, want %s together", c.flushTimeout(), c.endTimeout(), endSlackMin)
		}
		if sum := c.HandlerTimeout + c.flushTimeout() + c.endTimeout(); sum >= c.Timeout/2 {
			t.Fatalf("handlers, flush and end may take %s, want less than half of %s", sum, c.Timeout)
		}
		if 3*c.Heartbeat > c.SessionTimeout {
			t.Fatalf("3 x %s is more than %s", c.Heartbeat, c.SessionTimeout)
		}
		if c.RebalanceTimeout < c.HandlerTimeout+c.flushTimeout()+c.endTimeout() {
			t.Fatalf("a transaction may take longer than a rebalance waits (%s)", c.RebalanceTimeout)
		}
		if ms := c.Timeout.Milliseconds(); ms > math.MaxInt32 {
			t.Fatalf("%d ms do not fit into the protocol", ms)
		}
	})
}

// Rule 6: names are those of the instance and the lane, and no two lanes share one.
func TestRule6MembersAreNamedForApplicationInstanceAndLane(t *testing.T) {
	t.Parallel()
	c := validConfig()
	seen := map[string]bool{}
	for lane := range lanesMax {
		name := c.member(lane)
		if seen[name] || name != validConfig().member(lane) {
			t.Errorf("lane %d is called %s, which is taken or changes", lane, name)
		}
		seen[name] = true
	}
	if got := c.member(3); got != "app.one.3" {
		t.Errorf("lane 3 is called %s, want app.one.3", got)
	}
}

func TestLanesFollowCoresAndPartitions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ configured, partitions, least, most int }{
		{0, 1, 1, 1}, // more lanes than partitions would be idle
		{0, 0, 1, 1}, // never none
		{0, 1000, (runtime.GOMAXPROCS(0) + 1) / 2, lanesMax}, // one for two cores
		{3, 1, 3, 3}, // as configured
		{64, 1000, 64, 64},
	} {
		if got := Lanes(c.configured, c.partitions); got < c.least || got > c.most {
			t.Errorf("%d configured, %d partitions: %d lanes, want %d..%d", c.configured, c.partitions, got, c.least, c.most)
		}
	}
}

func TestLanesShareTheRecordsOfAProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ configured, lanes, want int }{
		{0, 1, 28_000},
		{0, 2, 14_000},
		{0, 64, 7_000}, // however many there are
		{500, 2, 500},  // as configured, each
	} {
		if got := (Config{RecordsMax: c.configured}).recordsMax(c.lanes); got != c.want {
			t.Errorf("%d configured, %d lanes: %d records each, want %d", c.configured, c.lanes, got, c.want)
		}
	}
}

func TestLanesShareTheBytesOfAProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		configured int64
		lanes      int
		want       int64
	}{
		{0, 1, 16 << 20},
		{0, 2, 8 << 20},
		{0, 64, 4 << 20},      // however many there are
		{1 << 20, 2, 1 << 20}, // as configured, each
	} {
		if got := (Config{BytesMax: c.configured}).bytesMax(c.lanes); got != c.want {
			t.Errorf("%d configured, %d lanes: %d bytes each, want %d", c.configured, c.lanes, got, c.want)
		}
	}
}

func TestReasonsAreListed(t *testing.T) {
	t.Parallel()
	if n := len(Outcomes()); n != 3 {
		t.Errorf("%d outcomes, want 3", n)
	}
	seen := map[Reason]bool{}
	for _, r := range Reasons() {
		if seen[r] {
			t.Errorf("%q is listed twice", r)
		}
		seen[r] = true
	}
	for _, r := range []Reason{ReasonNone, ReasonRebalance, ReasonProduce, ReasonRefused, ReasonHandler, ReasonSlow, ReasonFenced, ReasonUnknown, ReasonOffsets, ReasonGroup, ReasonBegin, ReasonOpen, ReasonSuspects} {
		if !seen[r] {
			t.Errorf("%q is not listed", r)
		}
	}
}
