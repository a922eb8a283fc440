// Package app turns one configuration into a running service: it reads the settings, builds every
// other package from them and starts and stops those in order.
package app

import "time"

// Config is the whole configuration. Its shape is the YAML file's. The tags are read by one walker
// that serves the file, the environment, --set, `config print`, the JSON Schema and the settings
// table:
//
//   - yaml: the key;
//   - doc: one sentence for the operator;
//   - range: MIN..MAX, both allowed, each in the setting's own notation, either may be empty;
//   - enum: the allowed values, separated by |, an empty one stands for "";
//   - required: true where a value must be given.
type Config struct {
	Application      string              `yaml:"application" required:"true" doc:"Prefix of the consumer group, the transactional ids and the internal topics. Never change it in a living system."`
	ReplayGeneration int                 `yaml:"replay_generation" range:"0..2147483647" doc:"Raise it only to repeat effects on purpose: it is part of every id but those of business keys."`
	Instance         string              `yaml:"instance" doc:"Name of this process, stable over restarts and unique among the living, such as the pod's name. Empty means the host name, with dots turned into dashes."`
	Kafka            Kafka               `yaml:"kafka" doc:"Connection to the brokers and membership in the consumer group."`
	Input            Input               `yaml:"input" doc:"Where reading begins."`
	Routes           []Route             `yaml:"routes" required:"true" doc:"Which handler gets the records of which topics."`
	Outputs          map[string]Output   `yaml:"outputs" doc:"Topics that handlers write to, by the names that handlers use."`
	Txn              Txn                 `yaml:"txn" doc:"Size and time limits of the transactions."`
	Effects          Effects             `yaml:"effects" doc:"Calls to the outside world that handlers ask for."`
	Endpoints        map[string]Endpoint `yaml:"endpoints" doc:"Receivers of effects, by the names that handlers use."`
	Postgres         Postgres            `yaml:"postgres" doc:"Database of the effect ledger."`
	Admin            Admin               `yaml:"admin" doc:"Operations HTTP: metrics, health, status."`
	Log              Log                 `yaml:"log" doc:"Log lines, written to standard error."`
}

// Kafka says how the brokers are reached and how long the group waits for a member.
type Kafka struct {
	Brokers          []string `yaml:"brokers" required:"true" doc:"Bootstrap brokers as host:port."`
	Protocol         string   `yaml:"protocol" enum:"classic|consumer" doc:"Group protocol: classic (cooperative-sticky) or consumer (KIP-848)."`
	SessionTimeout   Duration `yaml:"session_timeout" range:"6s..30m" doc:"A member that is silent for so long loses its partitions. Under protocol consumer the broker decides."`
	Heartbeat        Duration `yaml:"heartbeat" range:"100ms..10m" doc:"Pause between heartbeats, at most a third of session_timeout. Under protocol consumer the broker decides."`
	RebalanceTimeout Duration `yaml:"rebalance_timeout" range:"1s..30m" doc:"Time a member has to end its transaction and join again when the group changes."`
	Compression      string   `yaml:"compression" enum:"none|lz4|snappy|zstd" doc:"Compression of what is written."`
	TLS              TLS      `yaml:"tls" doc:"Encryption."`
	SASL             SASL     `yaml:"sasl" doc:"Authentication. Secrets come from files, which are read again when the broker refuses them."`
}

// TLS of the connection to the brokers.
type TLS struct {
	Enabled    bool   `yaml:"enabled" doc:"Whether to encrypt."`
	CAFile     string `yaml:"ca_file" doc:"PEM file of the authorities to trust. Empty means the system's."`
	CertFile   string `yaml:"cert_file" doc:"PEM file of the client certificate, for mutual TLS. Needs key_file."`
	KeyFile    string `yaml:"key_file" doc:"PEM file of the client certificate's key."`
	ServerName string `yaml:"server_name" doc:"Name to expect in the brokers' certificates. Empty means the name that was dialled."`
}

// SASL of the connection to the brokers.
type SASL struct {
	Mechanism    string `yaml:"mechanism" enum:"|PLAIN|SCRAM-SHA-256|SCRAM-SHA-512|OAUTHBEARER" doc:"Empty means no authentication."`
	Username     string `yaml:"username" doc:"User, for PLAIN and SCRAM."`
	PasswordFile string `yaml:"password_file" doc:"File that holds the password, for PLAIN and SCRAM."`
	TokenFile    string `yaml:"token_file" doc:"File that holds the token, for OAUTHBEARER."`
}

// Input is the policy for partitions without a committed offset.
type Input struct {
	Start string `yaml:"start" enum:"earliest|latest|fail" doc:"Where to begin where no offset is committed: at the earliest or the latest record, or not at all."`
}

// Route binds topics to a handler.
type Route struct {
	Topics  []string       `yaml:"topics" required:"true" doc:"Input topics. A topic belongs to one route."`
	Handler string         `yaml:"handler" required:"true" doc:"Name of the handler: copy, orders or order-results."`
	Config  map[string]any `yaml:"config" doc:"Settings of the handler, for instance {output: NAME} for copy."`
}

// Output is a topic that handlers write to.
type Output struct {
	Topic       string            `yaml:"topic" required:"true" doc:"Name of the topic."`
	Partitions  int32             `yaml:"partitions" range:"1..100000" doc:"Partitions that topics apply gives it."`
	Replication int16             `yaml:"replication" range:"-1..1000" doc:"Replicas that topics apply gives it. -1 means the brokers' default."`
	Settings    map[string]string `yaml:"settings" doc:"Topic settings that topics apply gives it, in Kafka's names."`
}

// Txn bounds one transaction.
type Txn struct {
	Lanes          int      `yaml:"lanes" range:"0..64" doc:"Transactional producers of this process. 0 means one for two cores, no more than partitions."`
	RecordsMax     int      `yaml:"records_max" range:"0..100000" doc:"Most records in one transaction, of the input or of what handlers make of it. 0 means 28,000 shared by the lanes of the process, at least 7,000 each."`
	BytesMax       ByteSize `yaml:"bytes_max" range:"0..1GiB" doc:"Most bytes in one transaction, of the input or of what handlers make of it; one record may exceed it alone. 0 means 16 MiB shared by the lanes of the process, at least 4 MiB each."`
	IntervalMin    Duration `yaml:"interval_min" range:"0s..1s" doc:"Least time between two commits of a lane under low load."`
	Timeout        Duration `yaml:"timeout" range:"5s..15m" doc:"The broker aborts a transaction that is open for so long. The brokers' transaction.max.timeout.ms is its limit."`
	HandlerTimeout Duration `yaml:"handler_timeout" range:"100ms..7m" doc:"Time a handler has for all records of a batch. Past it the process ends, naming the record."`
	DrainTimeout   Duration `yaml:"drain_timeout" range:"1s..1h" doc:"Time to finish after SIGTERM. Keep it below the orchestrator's grace period."`
}

// Effects is the way from handlers to the effect ledger.
type Effects struct {
	Enabled   bool     `yaml:"enabled" doc:"Whether handlers may ask for effects."`
	Lanes     int32    `yaml:"lanes" range:"1..1000" doc:"Partitions of the effects topic. Fixed for life: the order of calls hangs on it."`
	Retention Duration `yaml:"retention" range:"14d..3650d" doc:"How long the effects topic keeps what the ledger may need again, and the ledger what it has settled."`
	KeysFor   Duration `yaml:"keys_for" range:"1d..3650d" doc:"How long a business key is known: within that time another effect with it is a duplicate or a conflict."`
}

// Endpoint is a receiver of effects.
type Endpoint struct {
	URL          string            `yaml:"url" required:"true" doc:"Where to POST to, http or https."`
	Timeout      Duration          `yaml:"timeout" range:"1ms..10m" doc:"Limit of one call."`
	AttemptsMax  int               `yaml:"attempts_max" range:"1..1000000" doc:"Calls before an effect is dead."`
	AgeMax       Duration          `yaml:"age_max" range:"1s..365d" doc:"Age at which an effect is dead, whatever its attempts."`
	Concurrency  int               `yaml:"concurrency" range:"1..10000" doc:"Calls in flight at once."`
	Rate         float64           `yaml:"rate" range:"0..1000000" doc:"Most calls a second. 0 means no limit."`
	Headers      map[string]Secret `yaml:"headers" doc:"Sent with every call, for instance an API version. Values are never printed, but a secret is better named in header_files."`
	HeaderFiles  map[string]string `yaml:"header_files" doc:"More headers, each with the file that holds its value, for instance {Authorization: /run/secrets/token}. Read again when they change."`
	SecretFiles  []string          `yaml:"secret_files" doc:"Files of the secrets that sign calls (Standard Webhooks): the current one and, while receivers change over, a second. Read again when they change."`
	AllowPrivate bool              `yaml:"allow_private" doc:"Whether the receiver may have a private address or one of this host. Otherwise such a connection is refused."`
	OnDead       string            `yaml:"on_dead" enum:"continue|hold" doc:"What becomes of the later effects of a dead one's key: they continue, or wait for an operator."`
}

// Postgres is the effect ledger's database.
type Postgres struct {
	DSNFile     string `yaml:"dsn_file" doc:"File that holds the connection string."`
	DSN         Secret `yaml:"dsn" doc:"Connection string. Better given by dsn_file or by the environment."`
	Schema      string `yaml:"schema" doc:"Schema of the ledger's tables."`
	Connections int    `yaml:"connections" range:"2..1000" doc:"Most connections of one process. It uses up to three for each lane that it works on; with fewer, effects wait for one another."`
}

// Admin is the operations HTTP server.
type Admin struct {
	Listen    string   `yaml:"listen" doc:"Address to listen on, as host:port or :port."`
	TokenFile string   `yaml:"token_file" doc:"File that holds the token for changes and for what shows effects and dead letters. Empty means that both are refused."`
	Contents  bool     `yaml:"contents" doc:"Whether who has the token may see what effects send and what is answered to them, and the contents of dead letters."`
	Linger    Duration `yaml:"linger" range:"0s..10m" doc:"How long a process that found its name in use by another stays up without work, for its metrics to be scraped, before it ends."`
	Profiling bool     `yaml:"profiling" doc:"Whether /debug/pprof/ is served, to every reader of the address: a profile shows the process's inside."`
}

// Log says what is logged and how.
type Log struct {
	Level  string `yaml:"level" enum:"debug|info|warn|error" doc:"Least level that is written."`
	Format string `yaml:"format" enum:"json|text" doc:"json for machines, text for people."`
}

// Default returns the configuration that stands where nothing else is said. It is not complete:
// application and routes must be given.
func Default() Config {
	return Config{
		Kafka: Kafka{
			Brokers:          []string{"localhost:9092"},
			Protocol:         "classic",
			SessionTimeout:   Duration(20 * time.Second),
			Heartbeat:        Duration(3 * time.Second),
			RebalanceTimeout: Duration(60 * time.Second),
			Compression:      "none",
		},
		Input: Input{Start: "earliest"},
		Txn: Txn{
			IntervalMin:    Duration(5 * time.Millisecond),
			Timeout:        Duration(30 * time.Second),
			HandlerTimeout: Duration(10 * time.Second),
			DrainTimeout:   Duration(25 * time.Second),
		},
		Effects:  Effects{Enabled: true, Lanes: 12, Retention: Duration(14 * day), KeysFor: Duration(90 * day)},
		Postgres: Postgres{Schema: "pawl", Connections: 24},
		Admin:    Admin{Listen: ":9090", Linger: Duration(90 * time.Second)},
		Log:      Log{Level: "info", Format: "json"},
	}
}

// DefaultOutput is what an entry of outputs begins with.
func DefaultOutput() Output { return Output{Partitions: 12, Replication: -1} }

// DefaultEndpoint is what an entry of endpoints begins with.
func DefaultEndpoint() Endpoint {
	return Endpoint{
		Timeout:     Duration(5 * time.Second),
		AttemptsMax: 20,
		AgeMax:      Duration(24 * time.Hour),
		Concurrency: 64,
		OnDead:      "continue",
	}
}
