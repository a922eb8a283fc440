package arch

// rule is one row of the table: what a package may import beside the standard library.
type rule struct {
	inside  []string // packages of this module, without "pawl/" and "internal/"
	outside []string // families of other people's packages, see families
	tests   []string // what its tests may import besides: packages or families

	// testsOnly marks a package that no shipped program may reach. It may import whatever
	// testFamilies and testPackages hold.
	testsOnly bool
}

// table is the architecture: who may know whom. The arrows go
//
//	cmd/processor -> dev -> app -> telemetry -> {txn, outbox/*} -> message
//
// never sideways, never back. A package that is missing here fails the test, and so does a row
// without a package. Changing a row is an architecture change: give the reason in its comment.
var table = map[string]rule{
	// The nouns. They know nobody, so that everybody may know them.
	"message": {},

	// Places at which a test kills the process that is in the midst of them. In what is shipped it is an empty
	// function; the parts of the effect ledger name their places with it, because only the one who is there can
	// die exactly there.
	"failpoint": {},

	// Records that the log says are committed, out of those that a broker says are. A leaf, because whoever reads what
	// must not be aborted needs it.
	"committed": {outside: []string{"kgo", "kadm"}, tests: []string{"kfake"}},

	// The commit of transactions that a client ends by itself. A leaf, because txn, relay and deadletter write each their own.
	"transact": {outside: []string{"kgo"}, tests: []string{"kfake"}},

	// Reading the control topic as far as it is written. A leaf, because txn, pause and audit keep their notes there and must
	// not know each other; apart from kafka, whose topics have no such thing.
	"control": {outside: []string{"kgo"}, tests: []string{"kfake"}},

	// The nouns of the effect ledger, which its parts share and handlers have no use for. Beside message,
	// so that ledger, ingest, dispatch and relay need not know each other.
	"outbox": {inside: []string{"message"}},

	// Effects topic to ledger. It meets the ledger through an interface of its own.
	"outbox/ingest": {
		inside:  []string{"committed", "failpoint", "message", "outbox"},
		outside: []string{"kgo", "kadm"},
		tests:   []string{"kfake", "outbox/ledger/ledgertest"},
	},

	// Who is called when, and what becomes of it. It meets the ledger and the targets only through the
	// interfaces that it declares itself; its tests run it on the ledger in memory, and one of a large backlog on the real one.
	"outbox/dispatch": {
		inside:  []string{"failpoint", "message", "outbox"},
		outside: []string{"breaker", "time"},
		tests:   []string{"outbox/ledger/ledgertest", "outbox/ledger", "postgres"},
	},

	// Calls over HTTP. It stands below dispatch, which it does not know: app fits it into the interface
	// that dispatch declares.
	"outbox/dispatch/httptarget": {inside: []string{"message", "outbox"}},

	// The results of effects back to Kafka. It meets the ledger through the interface that it declares itself.
	"outbox/relay": {
		inside:  []string{"committed", "failpoint", "message", "outbox", "transact"},
		outside: []string{"kgo", "kadm", "time"},                         // lanes take turns
		tests:   []string{"kfake", "schema", "outbox/ledger/ledgertest"}, // events are held against their published schema
	},

	// A lost ledger out of the effects topic and of what was told. It is given both as functions, because it stands
	// beside ingest and relay, and meets the ledger through an interface of its own.
	"outbox/rebuild": {
		inside: []string{"message", "outbox"},
		tests:  []string{"outbox/ledger/ledgertest"},
	},

	// Pure business rules. What they cannot import they cannot do: no client, no clock, no I/O. Exact
	// decimal arithmetic is business, so it may come in.
	"handlers": {
		inside:  []string{"message"},
		outside: []string{"json", "decimal"},
		tests:   []string{"schema"}, // what they write is held against their published schemas
	},

	// The engine: a lane from poll to end of transaction. It meets handlers and telemetry only through
	// the interface and the hooks that it declares itself. Its tests run the shipped handlers through
	// it.
	"txn": {
		inside:  []string{"committed", "control", "message", "transact"},
		outside: []string{"kgo", "kadm", "sync"},
		tests:   []string{"handlers", "kfake"},
	},

	// What an operator has stopped for a while, in the control topic. Apart from txn and outbox/dispatch, which obey it
	// through what they declare themselves, because it is one mechanism for both; apart from kafka, because it is
	// a format of ours and no matter of brokers.
	"pause": {
		inside:  []string{"control"},
		outside: []string{"kgo"},
		tests:   []string{"kfake"},
	},

	// What operators ordered, in the control topic. Apart from pause, whose notes processes obey, and from the ledger, which
	// an application without effects has not.
	"audit": {
		inside:  []string{"control"},
		outside: []string{"kgo"},
		tests:   []string{"kfake"},
	},

	// Everything about brokers that is not a transaction: connecting, preflight, topics, lag, offsets.
	// Plain Go types in, so that no configuration format reaches it.
	"kafka": {
		inside:  []string{"redact"}, // of what brokers quote
		outside: []string{"kgo", "kadm", "sync"},
		tests:   []string{"kfake"},
	},

	// Reading dead letters back, redriving and discarding them. Apart from kafka, because it knows the
	// headers of message, and apart from txn, because an operator starts it and it ends.
	"deadletter": {
		inside:  []string{"committed", "message", "transact"},
		outside: []string{"kgo", "kadm"},
		tests:   []string{"kfake"},
	},

	// Connecting to Postgres, migrations, names of its error codes. No table is named here.
	"postgres": {outside: []string{"pgx", "goose"}},

	// The effect ledger in Postgres. Its tests hold it against the contract.
	"outbox/ledger": {
		inside:  []string{"failpoint", "message", "outbox", "postgres"},
		outside: []string{"pgx"},
		tests:   []string{"outbox/ledger/ledgertest"},
	},

	// Hooks turned into metrics, spans and log lines. It knows the hook types of txn, txn does not know it. What
	// OpenTelemetry is nobody else knows.
	"telemetry": {
		inside:  []string{"txn", "message", "outbox", "outbox/dispatch", "outbox/ingest", "outbox/relay", "redact"}, // what a collector says
		outside: []string{"prometheus", "otel"},
		tests:   []string{"kgo"}, // the brokers' errors, whose kinds it counts
	},

	// Operations HTTP. Its facts come in as functions, so that it knows no neighbour at all.
	"admin": {
		outside: []string{"prometheus"},
	},

	// What an incident needs, in one archive: pieces, their failures, and no secret. What the pieces are it is told.
	"bundle": {inside: []string{"redact"}},

	// Secrets out of text. Beside bundle, because logs pass it too.
	"redact": {},

	// What running processes tell, in a terminal. It knows their answers as any stranger would and none of their packages.
	"top": {outside: []string{"prometheus", "terminal"}, tests: []string{"sys"}},

	// Configuration and wiring: the one place where the packages meet, and the only one that reads
	// YAML and the environment.
	"app": {
		inside: []string{
			"admin", "audit", "handlers", "kafka", "message", "pause", "telemetry", "txn",
			"outbox", "outbox/dispatch", "outbox/dispatch/httptarget", "outbox/ingest", "outbox/ledger", "outbox/rebuild", "outbox/relay", "postgres",
			"deadletter", // shown by the operations HTTP, which asks app for every fact
			"redact",     // what is logged
			"verify",     // what a check must find follows from the configuration
		},
		outside: []string{"yaml", "jsonschema", "kgo", "kadm", "kprom", "pgx", "prometheus", "sync"},
		tests:   []string{"kfake", "json", "otlp"},
	},

	// Real Kafka and Postgres as processes of this machine. Shipped: `processor dev` and bench start
	// them. Hence no import of testing.
	"cluster": {
		outside: []string{"kgo", "kadm", "pgx", "sys"},
	},

	// Load and latency over plain clients: what the load tells must not depend on the code under test, but for what
	// is committed, which no client can be believed.
	"load": {
		inside:  []string{"committed", "message"},
		outside: []string{"kgo", "kadm", "time", "sync", "json"},
		tests:   []string{"kfake"},
	},

	// Throughput, latency and cost of processes that copy, from outside, for `processor bench` and for bench/, which
	// is a module of its own. Apart from load, because that knows records and not processes; of kafka it wants
	// what a group's members are, whatever its protocol.
	"yardstick": {
		inside:  []string{"kafka", "load"},
		outside: []string{"kgo", "kadm", "sync"},
		tests:   []string{"kfake"},
	},

	// How many lanes, processes and partitions a load wants: arithmetic over what bench has printed. Its tests ask
	// brokers whether they agree.
	"sizing": {tests: []string{"kadm"}},

	// The exactly-once checker. It shares nothing with the engine and the ledger, whose mistakes it is to find,
	// but the nouns and the pure handlers, which are its model.
	"verify": {
		inside:  []string{"message", "handlers"},
		outside: []string{"kgo", "pgx"},
		tests:   []string{"kfake"},
	},

	// `processor dev`: everything in one command. It sits above app, and brings what app must not know:
	// a broker, a load, a terminal. Its tests name handlers, because it plays the part of the outside world
	// that their orders and charges need.
	"dev": {
		inside:  []string{"app", "cluster", "deadletter", "kafka", "load", "message", "verify"},
		outside: []string{"kgo", "kadm", "kfake", "terminal", "sync", "json"},
		tests:   []string{"handlers", "outbox", "outbox/dispatch/httptarget"}, // its charge endpoint is called as Pawl calls
	},

	// The program: signals, exit codes, one file per command. Commands may use the packages that do
	// their work, because app is for running the service, not for passing calls along.
	"cmd/processor": {
		inside: []string{
			"app", "audit", "bundle", "deadletter", "dev", "kafka", "load", "message", "outbox", "outbox/ledger", "outbox/rebuild", "pause", "postgres", "redact",
			"sizing", "telemetry", "top", "yardstick", "verify", // `verify --follow` is a service of its own, with metrics on an address
		},
		outside: []string{"cobra", "pgx", "terminal", "automemlimit", "kgo", "kadm", "json", "yaml"},
		tests:   []string{"kfake", "outbox/ledger/ledgertest"},
	},

	// Tests only, from here on.

	// Brokers, databases, proxies, fault injectors and a browser.
	"testkit": {
		testsOnly: true,
		inside:    []string{"cluster", "committed", "message"}, // what is committed, brokers may get wrong
		outside:   []string{"kgo", "kadm", "pgx", "containers"},
	},

	// Files that are kept, and the one flag -update. Apart from testkit, whose brokers and databases unit tests do without.
	"testkit/golden": {testsOnly: true},

	// This table.
	"arch": {testsOnly: true},

	// What may go wrong around us, and the tests that make it: data and a page of documentation.
	"faults": {testsOnly: true},

	// Our rules, broken one at a time: it runs the tests of other packages and knows none of them.
	"mutants": {testsOnly: true, inside: []string{"evidence"}},
	// What runs of the proof have shown, and the report that is made of it.
	"evidence": {testsOnly: true},

	// The ledger's contract as tests, and the ledger in memory that unit tests of its callers stand on.
	"outbox/ledger/ledgertest": {testsOnly: true, inside: []string{"outbox", "message"}},

	// Whole histories in virtual time. It wires the parts as app does, without app's configuration and
	// telemetry, which know real networks and clocks only.
	"sim": {
		testsOnly: true,
		inside:    []string{"evidence", "outbox", "outbox/dispatch", "outbox/ingest", "outbox/relay", "outbox/ledger/ledgertest", "txn", "verify"},
		outside:   []string{"kgo", "kadm", "kfake"},
	},

	// The built program under fault. It may know the load that it drives and the settings that it
	// writes, but checks the result with plain clients, and with the checker, which knows the handlers.
	"e2e": {
		testsOnly: true,
		inside:    []string{"cluster", "evidence", "handlers", "kafka", "load", "message", "verify"},
		outside:   []string{"kgo", "kadm", "pgx", "yaml"},
	},
}

// families groups other people's packages by what they are for. The prefix of an import path
// decides; of several, the longest.
var families = map[string][]string{
	"kgo":          {"github.com/twmb/franz-go/pkg"},
	"kadm":         {"github.com/twmb/franz-go/pkg/kadm"},
	"kfake":        {"github.com/twmb/franz-go/pkg/kfake"},
	"kprom":        {"github.com/twmb/franz-go/plugin/kprom"},
	"otel":         {"go.opentelemetry.io/otel"},
	"otlp":         {"go.opentelemetry.io/proto/otlp", "google.golang.org/protobuf"}, // what a collector is sent
	"prometheus":   {"github.com/prometheus/client_golang", "github.com/prometheus/client_model", "github.com/prometheus/common"},
	"pgx":          {"github.com/jackc/pgx"},
	"goose":        {"github.com/pressly/goose/v3"},
	"breaker":      {"github.com/sony/gobreaker/v2"},
	"yaml":         {"go.yaml.in/yaml/v4"},
	"jsonschema":   {"github.com/invopop/jsonschema", "github.com/pb33f/ordered-map"},
	"json":         {"github.com/go-json-experiment/json"},
	"decimal":      {"github.com/shopspring/decimal"},
	"cobra":        {"github.com/spf13/cobra", "github.com/spf13/pflag"},
	"terminal":     {"charm.land/bubbletea", "github.com/lmittmann/tint", "github.com/mattn/go-isatty", "github.com/schollz/progressbar", "golang.org/x/term"},
	"automemlimit": {"github.com/KimMachineGun/automemlimit"},
	"sync":         {"golang.org/x/sync"},
	"time":         {"golang.org/x/time"},
	"sys":          {"golang.org/x/sys"},
	"containers":   {"github.com/testcontainers", "github.com/docker/go-connections", "github.com/moby/moby"},
	"schema":       {"github.com/santhosh-tekuri/jsonschema"},
	"check":        {"github.com/google/go-cmp", "go.uber.org/goleak", "pgregory.net/rapid"},
}

// Every test may import these, and so may every package that is for tests only. message is among
// them because its nouns are how tests say what goes in and out, transact because a test that commits by itself would
// abort now and then.
var (
	testFamilies = []string{"check", "kgo", "sync"}
	testPackages = []string{"testkit", "testkit/golden", "cluster", "message", "transact", "faults"} // of the last, what each mistake must show
)
