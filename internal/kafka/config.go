// Package kafka holds everything about Kafka that is not a transaction: how clients connect and
// authenticate, whether a cluster is fit for the service, which topics it should have, and what an
// operator looks at when something stands still: lag, offsets, open transactions.
package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// metadataPause is how soon a client may ask for metadata again. The client's own 5 s stalls a
	// lane for that long after any retriable produce error.
	metadataPause = 50 * time.Millisecond

	// decompressedBatchBytesMax bounds what one fetched batch may grow to: a batch beyond it is an
	// attack or an accident, and a gigabyte of it would end the process.
	decompressedBatchBytesMax = 64 << 20

	dialTimeout = 5 * time.Second

	// probeRetryTimeout bounds the retries of a client that is not known to be configured well: an
	// operator waits for its answer.
	probeRetryTimeout = 10 * time.Second

	// probeAnswerTimeout is how long such a client waits for an answer, beyond what the request
	// itself allows the broker.
	probeAnswerTimeout = 5 * time.Second
)

// Config says how to reach and enter a Kafka cluster. It holds no secret, only the names of the
// files that do.
type Config struct {
	Brokers  []string // host:port, at least one
	ClientID string   // shown by the brokers' metrics and logs; empty leaves the library's
	Version  string   // of this program, told to the brokers; empty means "dev"
	TLS      TLS
	SASL     SASL
	Log      *slog.Logger // nil is silent
}

// TLS says how connections are encrypted. Certificates are always verified, chain and host name.
type TLS struct {
	Enabled    bool
	CAFile     string // PEM bundle; empty trusts the system's authorities
	CertFile   string // PEM chain of the client's certificate; needs KeyFile
	KeyFile    string // PEM key of CertFile
	ServerName string // verified instead of each broker's host name; for brokers behind one name
}

// SASL says who we are. A secret's file is read anew for every authentication, so that replacing
// the file is all that rotation needs.
type SASL struct {
	Mechanism    string // empty, PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER
	Username     string
	PasswordFile string            // for PLAIN and SCRAM
	TokenFile    string            // for OAUTHBEARER: a bearer token
	Extensions   map[string]string // for OAUTHBEARER: SASL extensions (RFC 7628), such as a logical cluster
}

// Role says what a topic is to the service.
type Role string

// The roles of topics. Inputs belong to somebody else; the rest are the service's own.
const (
	RoleInput      Role = "input"
	RoleOutput     Role = "output"
	RoleEffects    Role = "effects"
	RoleResults    Role = "results"
	RoleProgress   Role = "progress"
	RoleDeadLetter Role = "dead-letter"
	RoleControl    Role = "control"
)

// Topic is one topic as the configuration wants it.
type Topic struct {
	Name        string
	Partitions  int32             // 0 leaves the number to whoever made the topic
	Replication int16             // -1 is the broker's default; it is checked, never changed
	Settings    map[string]string // topic settings by Kafka's names; others are left alone
	Role        Role
}

// Validate reports every problem of the configuration that can be seen without a network, the
// files it names included.
func (c Config) Validate() error {
	_, err := c.options()
	return err
}

// Options gives the options of a long-lived client. They retry a connection that a broker closes
// at once, which is right only where the same configuration is known to work: run Preflight first.
// Several clients may share one result; they then share the pause after refused credentials, so
// that a whole process asks a broker as seldom as one client would. All problems come in one error,
// by the names of the configuration file.
func (c Config) Options() ([]kgo.Opt, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	return append(opts, kgo.AlwaysRetryEOF()), nil
}

// ProbeOptions gives the options of a short-lived client: the same connection, but a broker that
// hangs up at once is an error with a hint and not a reason to try again, and requests give up
// after seconds.
func (c Config) ProbeOptions() ([]kgo.Opt, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	return append(opts, kgo.RetryTimeout(probeRetryTimeout), kgo.RequestTimeoutOverhead(probeAnswerTimeout)), nil
}

func (c Config) options() ([]kgo.Opt, error) {
	errs := c.brokerErrors()
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.SoftwareNameAndVersion("pawl", softwareVersion(c.Version)),
		kgo.MetadataMinAge(metadataPause),
		kgo.MaxDecompressBatchBytes(decompressedBatchBytesMax),
	}
	if c.ClientID != "" {
		opts = append(opts, kgo.ClientID(c.ClientID))
	}
	if c.Log != nil {
		opts = append(opts, kgo.WithLogger(newLogger(c.Log)))
	}
	if c.TLS.Enabled {
		dialer, err := newTLSDialer(c.TLS)
		errs = append(errs, err)
		if err == nil {
			opts = append(opts, kgo.Dialer(dialer.dial))
		}
	} else {
		opts = append(opts, kgo.DialTimeout(dialTimeout))
		if c.TLS != (TLS{}) {
			errs = append(errs, errors.New("kafka.tls has settings but kafka.tls.enabled is false: set it to true, or remove them"))
		}
	}
	mechanism, err := newMechanism(c.SASL, newGate(c.Log, c.SASL.next()))
	errs = append(errs, err)
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism), kgo.WithHooks(mechanism.gate))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return opts, nil
}

func (c Config) brokerErrors() []error {
	if len(c.Brokers) == 0 {
		return []error{errors.New("kafka.brokers is empty: name at least one broker as host:port")}
	}
	var errs []error
	for _, broker := range c.Brokers {
		host, port, err := net.SplitHostPort(broker)
		if err != nil {
			errs = append(errs, fmt.Errorf("kafka.brokers: %q is not host:port", broker))
			continue
		}
		if number, err := strconv.Atoi(port); host == "" || err != nil || number < 1 || number > 65535 {
			errs = append(errs, fmt.Errorf("kafka.brokers: %q is not host:port", broker))
		}
	}
	return errs
}

// softwareVersion makes text fit for ApiVersions (KIP-511): letters, digits, dots and dashes,
// beginning and ending with a letter or digit.
func softwareVersion(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.':
			return r
		default:
			return '-'
		}
	}, text)
	if text = strings.Trim(text, ".-"); text == "" {
		return "dev"
	}
	return text
}
