package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// diagnoseTimeout bounds each question that is asked only to explain a failure.
	diagnoseTimeout = 3 * time.Second

	// remoteError is the operation of the *net.OpError that carries an alert of the other end (crypto/tls).
	remoteError = "remote error"
)

// ConnectError says why no broker lets us in, and what to do about it.
type ConnectError struct {
	Detail string // what is wrong
	Next   string // what to change or run
	Err    error  // what the client library saw
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("connect to kafka: %s: %s", e.Detail, e.Next)
}

func (e *ConnectError) Unwrap() error { return e.Err }

// Open makes a client for one command or one check: with ProbeOptions and opts, and only once a
// broker has answered it. Each bootstrap broker is asked once. The error is a *ConnectError, or
// tells what is wrong with the configuration.
func (c Config) Open(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	base, err := c.ProbeOptions()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(base, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("make kafka client: %w", err)
	}
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, c.explain(ctx, err)
	}
	return client, nil
}

// explain turns what the client library saw into what an operator can act on. It may ask the
// brokers again, without credentials, what kind of listener they are.
func (c Config) explain(ctx context.Context, err error) *ConnectError {
	detail, next := c.explainConnection(ctx, err)
	if detail == "" {
		detail, next = c.explainListener(ctx, err)
	}
	return &ConnectError{Detail: detail, Next: next, Err: err}
}

// explainConnection knows what keeps a connection from being made, and says nothing of other errors.
func (c Config) explainConnection(ctx context.Context, err error) (detail, next string) {
	for _, look := range []func(context.Context, error) (detail, next string){c.explainCredentials, c.explainTLS, c.explainNetwork} {
		if detail, next := look(ctx, err); detail != "" {
			return detail, next
		}
	}
	return "", ""
}

func (c Config) explainCredentials(ctx context.Context, err error) (detail, next string) {
	name := strings.ToUpper(c.SASL.Mechanism)
	var credentials *CredentialsError
	switch {
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		offered := c.offered(ctx)
		if len(offered) == 0 {
			return "the broker does not offer the SASL mechanism " + name,
				"set kafka.sasl.mechanism to one that the listener has in sasl.enabled.mechanisms"
		}
		return fmt.Sprintf("the broker does not offer the SASL mechanism %s, only %s", name, strings.Join(offered, ", ")),
			"set kafka.sasl.mechanism to one of them"
	case errors.Is(err, kerr.IllegalSaslState):
		return "the listener does not want SASL, but kafka.sasl.mechanism is " + name,
			"clear kafka.sasl.mechanism, or use the port of the SASL listener in kafka.brokers"
	case name == mechanismOAuthBearer && (errors.Is(err, kerr.SaslAuthenticationFailed) || errors.As(err, &credentials)):
		return fmt.Sprintf("the broker refuses the token of %s: %s", c.SASL.TokenFile, c.SASL.hide(err.Error())), c.SASL.next()
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Sprintf("the broker refuses user %q with %s", c.SASL.Username, name), c.SASL.next()
	case errors.As(err, &credentials):
		return c.SASL.hide(credentials.Error()), "correct the file: it is read again for every connection"
	default:
		return "", ""
	}
}

func (c Config) explainTLS(ctx context.Context, err error) (detail, next string) {
	var (
		unknown *x509.UnknownAuthorityError
		unk     x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		alert   *net.OpError
	)
	switch {
	case errors.As(err, &unknown), errors.As(err, &unk):
		if c.TLS.CAFile == "" {
			return "the broker's certificate is signed by an authority that this system does not know",
				"set kafka.tls.ca_file to the PEM file of that authority"
		}
		return "the broker's certificate is not signed by an authority in " + c.TLS.CAFile,
			"put the authority that signed it into kafka.tls.ca_file"
	case errors.As(err, &host):
		return "the broker's certificate is for another name: " + host.Error(),
			"use that name in kafka.brokers and advertised.listeners, or set kafka.tls.server_name"
	case errors.As(err, &invalid):
		return "the broker's certificate is not valid: " + invalid.Error(), "renew the broker's certificate, and check this machine's clock"
	case errors.As(err, &record), c.TLS.Enabled && isSilence(err) && c.speaksPlain(ctx):
		return "the listener does not speak TLS, but kafka.tls.enabled is true",
			"use the port of the TLS listener in kafka.brokers, or set kafka.tls.enabled to false"
	case errors.As(err, &alert) && alert.Op == remoteError && c.TLS.CertFile == "":
		return fmt.Sprintf("the broker ends the TLS handshake: %v", alert.Err),
			"it may ask for a client certificate: set kafka.tls.cert_file and kafka.tls.key_file"
	case errors.As(err, &alert) && alert.Op == remoteError:
		return fmt.Sprintf("the broker ends the TLS handshake: %v", alert.Err),
			fmt.Sprintf("check that %s (kafka.tls.cert_file) is not expired and is signed by an authority in the broker's truststore", c.TLS.CertFile)
	default:
		return "", ""
	}
}

func (c Config) explainNetwork(ctx context.Context, err error) (detail, next string) {
	var (
		name    *net.DNSError
		timeout net.Error
	)
	switch {
	case errors.As(err, &name):
		return fmt.Sprintf("no address for host %q", name.Name), "correct the host in kafka.brokers, or the name service"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at " + c.brokers(), "check kafka.brokers (host and port), and that the brokers are running"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to " + c.brokers(), "check kafka.brokers, and the network between here and there"
	case errors.As(err, &timeout) && timeout.Timeout(), ctx.Err() != nil:
		return "no answer from " + c.brokers(), "check kafka.brokers, firewalls and network policies"
	default:
		return "", ""
	}
}

// explainListener is for a broker that hangs up or answers nonsense: it finds out what the listener
// is. kgo's own guess cannot tell a missing SASL from a missing TLS.
func (c Config) explainListener(ctx context.Context, err error) (detail, next string) {
	if !c.TLS.Enabled && c.speaksTLS(ctx) {
		return "the listener speaks TLS, but kafka.tls.enabled is false",
			"set kafka.tls.enabled to true, or use the port of the plain listener in kafka.brokers"
	}
	offered := c.offered(ctx)
	switch {
	case c.SASL.Mechanism == "" && len(offered) > 0:
		return "the listener wants SASL, but kafka.sasl.mechanism is empty; it offers " + strings.Join(offered, ", "),
			"set kafka.sasl.mechanism, username and password_file, or use the port of another listener in kafka.brokers"
	case len(offered) > 0:
		return fmt.Sprintf("the broker hangs up while %q authenticates with %s", c.SASL.Username, strings.ToUpper(c.SASL.Mechanism)),
			"check kafka.sasl, and the broker's log for the reason"
	case c.TLS.Enabled:
		return fmt.Sprintf("the broker hangs up when the connection begins: %v", err),
			"check that the port in kafka.brokers is a TLS listener, and whether it asks for a client certificate (kafka.tls.cert_file)"
	default:
		return fmt.Sprintf("what listens at %s is not a Kafka broker, or hangs up when the connection begins: %v", c.brokers(), err),
			"check kafka.brokers, and the listener's security.protocol on the broker"
	}
}

// isSilence tells a broker that hung up or did not answer.
func isSilence(err error) bool {
	var timeout net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout())
}

// offered asks a bootstrap broker which SASL mechanisms its listener has. Empty means that there is
// no SASL or no answer. No credentials are sent.
func (c Config) offered(ctx context.Context) []string {
	bare := c
	bare.SASL = SASL{}
	answer := bare.handshake(ctx)
	if answer == nil || answer.ErrorCode != kerr.UnsupportedSaslMechanism.Code {
		return nil
	}
	return answer.SupportedMechanisms
}

// speaksPlain tells whether a bootstrap broker answers without TLS.
func (c Config) speaksPlain(ctx context.Context) bool {
	bare := c
	bare.TLS, bare.SASL = TLS{}, SASL{}
	return bare.handshake(ctx) != nil
}

// handshake asks for a SASL mechanism that does not exist, the one request that every listener
// answers: one with SASL lists what there is, one without says so. It returns nil where nobody does.
func (c Config) handshake(ctx context.Context) *kmsg.SASLHandshakeResponse {
	c.Log = nil
	opts, err := c.ProbeOptions()
	if err != nil {
		return nil
	}
	client, err := kgo.NewClient(append(opts, kgo.DialTimeout(diagnoseTimeout), kgo.RequestTimeoutOverhead(diagnoseTimeout))...)
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := diagnose(ctx)
	defer cancel()
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = "NONE"
	for _, broker := range client.SeedBrokers() {
		resp, err := broker.Request(ctx, req)
		if answer, ok := resp.(*kmsg.SASLHandshakeResponse); ok && err == nil {
			return answer
		}
	}
	return nil
}

// speaksTLS tries a TLS handshake with the first bootstrap broker that answers.
func (c Config) speaksTLS(ctx context.Context) bool {
	ctx, cancel := diagnose(ctx)
	defer cancel()
	for _, broker := range c.Brokers {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", broker)
		if err != nil {
			continue
		}
		//nolint:gosec // whose certificate it is does not matter: nothing is sent over this connection
		err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}).HandshakeContext(ctx)
		_ = conn.Close() // nothing was sent
		var alert *net.OpError
		return err == nil || (errors.As(err, &alert) && alert.Op == remoteError)
	}
	return false
}

// diagnose gives a question its own time: what is to be explained may be that time ran out. Only
// somebody who does not want to know any more cuts it short.
func diagnose(ctx context.Context) (context.Context, context.CancelFunc) {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.WithTimeout(ctx, diagnoseTimeout)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), diagnoseTimeout)
}

func (c Config) brokers() string { return strings.Join(c.Brokers, ", ") }
