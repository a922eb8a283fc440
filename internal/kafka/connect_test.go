package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/faults"
)

const (
	mechanismUnderTest = "SCRAM-SHA-512"
	rightPassword      = "correct-horse-battery-staple"
	wrongPassword      = "tr0ub4dor&3"
)

func withUser() []kfake.Opt {
	return []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanismUnderTest, "pawl", rightPassword), kfake.Superuser("PLAIN", "pawl", rightPassword), kfake.Superuser("SCRAM-SHA-256", "pawl", rightPassword)}
}

func TestEveryPasswordMechanismAuthenticates(t *testing.T) {
	t.Parallel()
	fake := newFake(t, withUser()...)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "scram-sha-512"} {
		conf := fake.conf
		conf.SASL = SASL{Mechanism: mechanism, Username: "pawl", PasswordFile: write(t, "password", rightPassword+"\r\n")}
		client, err := conf.Open(short(t))
		if err != nil {
			t.Errorf("%s: %v", mechanism, err)
			continue
		}
		client.Close()
	}
}

// What an operator reads when nothing connects: one message with the cause and the next step,
// after as few attempts as it takes.
func TestConnectErrorNamesCauseAndNextStep(t *testing.T) {
	t.Parallel()
	ca, otherCA := newAuthority(t, "ca"), newAuthority(t, "other ca")
	caFile, otherFile := write(t, "ca", ca.pem), write(t, "other", otherCA.pem)
	certificate, key := otherCA.issue("client")
	password := write(t, "password", wrongPassword)
	mutual := ca.serverTLS("127.0.0.1")
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()

	plain := newFake(t)
	sasl := newFake(t, withUser()...)
	refuseWrongPasswords(sasl.Cluster)
	encrypted := newFake(t, kfake.TLS(ca.serverTLS("127.0.0.1")))
	misnamed := newFake(t, kfake.TLS(ca.serverTLS("kafka.example")))
	asking := newFake(t, kfake.TLS(mutual))
	tomorrow := ca.serverTLS("127.0.0.1")
	later, laterKey := ca.issueFrom("broker", time.Now().Add(time.Hour), "127.0.0.1")
	var err error
	if tomorrow.Certificates[0], err = tls.X509KeyPair([]byte(later), []byte(laterKey)); err != nil {
		t.Fatal(err)
	}
	early := newFake(t, kfake.TLS(tomorrow))
	silent := listen(t, func(net.Conn) {})
	rude := listen(t, func(conn net.Conn) { _ = conn.Close() })
	web := listen(t, func(conn net.Conn) {
		_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		_ = conn.Close()
	})

	for name, test := range map[string]struct {
		brokers      []string
		tls          TLS
		sasl         SASL
		detail, next string
		mistake      string // on the page of mistakes
	}{
		"wrong password": {
			mistake: "wrong-password",
			brokers: sasl.conf.Brokers, sasl: SASL{Mechanism: mechanismUnderTest, Username: "pawl", PasswordFile: password},
			detail: `the broker refuses user "pawl" with SCRAM-SHA-512`, next: "kafka.sasl.password_file",
		},
		"wrong password, PLAIN": {
			brokers: sasl.conf.Brokers, sasl: SASL{Mechanism: "PLAIN", Username: "pawl", PasswordFile: password},
			detail: `the broker refuses user "pawl" with PLAIN`, next: "kafka.sasl.password_file",
		},
		"wrong mechanism": {
			mistake: "wrong-mechanism",
			brokers: sasl.conf.Brokers, sasl: SASL{Mechanism: "OAUTHBEARER", TokenFile: write(t, "token", "opaque")},
			detail: "does not offer the SASL mechanism OAUTHBEARER, only PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", next: "kafka.sasl.mechanism",
		},
		"SASL missing": {
			mistake: "sasl-missing",
			brokers: sasl.conf.Brokers,
			detail:  "the listener wants SASL, but kafka.sasl.mechanism is empty; it offers PLAIN", next: "set kafka.sasl.mechanism",
		},
		"TLS missing": {
			mistake: "tls-missing",
			brokers: encrypted.conf.Brokers,
			detail:  "the listener speaks TLS, but kafka.tls.enabled is false", next: "set kafka.tls.enabled to true",
		},
		"TLS too much": {
			brokers: plain.conf.Brokers, tls: TLS{Enabled: true},
			detail: "the listener does not speak TLS, but kafka.tls.enabled is true", next: "set kafka.tls.enabled to false",
		},
		"unknown authority": {
			brokers: encrypted.conf.Brokers, tls: TLS{Enabled: true},
			detail: "signed by an authority that this system does not know", next: "set kafka.tls.ca_file",
		},
		"wrong authority": {
			mistake: "wrong-ca",
			brokers: encrypted.conf.Brokers, tls: TLS{Enabled: true, CAFile: otherFile},
			detail: "not signed by an authority in " + otherFile, next: "kafka.tls.ca_file",
		},
		"wrong name": {
			mistake: "wrong-name",
			brokers: misnamed.conf.Brokers, tls: TLS{Enabled: true, CAFile: caFile},
			detail: "the broker's certificate is for another name", next: "kafka.tls.server_name",
		},
		"certificate of tomorrow": {
			mistake: "clock-behind",
			brokers: early.conf.Brokers, tls: TLS{Enabled: true, CAFile: caFile},
			detail: "the broker's certificate is not valid", next: "check this machine's clock",
		},
		"no client certificate": {
			mistake: "no-client-certificate",
			brokers: asking.conf.Brokers, tls: TLS{Enabled: true, CAFile: caFile},
			detail: "the broker ends the TLS handshake", next: "set kafka.tls.cert_file",
		},
		"wrong client certificate": {
			brokers: asking.conf.Brokers, tls: TLS{Enabled: true, CAFile: caFile, CertFile: write(t, "crt", certificate), KeyFile: write(t, "key", key)},
			detail: "the broker ends the TLS handshake", next: "signed by an authority in the broker's truststore",
		},
		"nothing listens": {
			mistake: "wrong-address",
			brokers: []string{unused(t)},
			detail:  "nothing listens at 127.0.0.1:", next: "check kafka.brokers",
		},
		"no such host": {
			mistake: "no-such-host",
			brokers: []string{"kafka.invalid:9092"},
			detail:  `no address for host "kafka.invalid"`, next: "correct the host in kafka.brokers",
		},
		"no answer": {
			mistake: "firewall",
			brokers: []string{silent},
			detail:  "no answer from " + silent, next: "firewalls",
		},
		"hangs up": {
			brokers: []string{rude},
			detail:  "is not a Kafka broker, or hangs up", next: "check kafka.brokers",
		},
		"not Kafka": {
			brokers: []string{web},
			detail:  "is not a Kafka broker", next: "check kafka.brokers",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs, log := newLog()
			count := newAttempts()
			conf := Config{Brokers: test.brokers, TLS: test.tls, SASL: test.sasl, Log: log}
			ctx := short(t)
			if name == "no answer" || name == "TLS too much" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
				defer cancel()
			}
			client, err := conf.Open(ctx, kgo.WithHooks(count))
			if err == nil {
				client.Close()
				t.Fatal("connected")
			}
			var connect *ConnectError
			if !errors.As(err, &connect) {
				t.Fatalf("error %v is no ConnectError", err)
			}
			if !strings.Contains(connect.Detail, test.detail) || !strings.Contains(connect.Next, test.next) {
				t.Errorf("got detail %q, next %q; want %q and %q in them", connect.Detail, connect.Next, test.detail, test.next)
			}
			if test.mistake != "" {
				faults.Shows(t, test.mistake, err.Error())
			}
			// kgo tries a connection that was reset three times with two versions of its first request.
			if opened, _ := count.count(); opened > 6 {
				t.Errorf("%d connections, want at most 6", opened)
			}
			if text := logs.String() + err.Error(); strings.Contains(text, wrongPassword) {
				t.Errorf("the password is in %q", text)
			}
		})
	}
}

// A password is replaced while the service runs: the next connection uses the new one, and while
// it is wrong the broker is not flooded. A consumer in a group with the engine's eager settings has
// several loops that would each retry every few milliseconds.
func TestWrongPasswordIsNoHotLoopAndRotates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		cluster, err := kfake.NewCluster(append(withUser(), kfake.NumBrokers(3), kfake.Ports(9092, 9093, 9094), kfake.ListenFn(network.Listen), kfake.SeedTopics(3, "in"))...)
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		refuseWrongPasswords(cluster)
		logs, log := newLog()
		file := write(t, "password", wrongPassword)
		conf := Config{Brokers: cluster.ListenAddrs(), Log: log, SASL: SASL{Mechanism: "PLAIN", Username: "pawl", PasswordFile: file}}
		opts, err := conf.Options()
		if err != nil {
			t.Fatal(err)
		}
		count := newAttempts()
		// The polls end before the clients close: the poll of a closed client returns at once, and in a
		// loop it would never let virtual time go on, which the close of the next client waits for.
		ctx, cancel := context.WithCancel(t.Context())
		var clients []*kgo.Client
		var polls sync.WaitGroup
		defer func() {
			cancel()
			polls.Wait()
			for _, client := range clients {
				client.Close()
			}
		}()
		for range 4 { // lanes, which share the options
			client, err := kgo.NewClient(append(opts,
				kgo.Dialer(network.DialContext), kgo.WithHooks(count),
				kgo.ConsumerGroup("group"), kgo.ConsumeTopics("in"),
				kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }))...)
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, client)
			polls.Go(func() {
				for ctx.Err() == nil {
					client.PollFetches(ctx)
				}
			})
		}
		time.Sleep(10 * time.Minute) //nolint:forbidigo // virtual time
		opened, failed := count.count()
		t.Logf("10 minutes with a wrong password: %d connections, %d failed", opened, failed)
		// At one attempt per gatePauseMax, after a beginning that doubles, and the four lanes' first.
		if most := int(10*time.Minute/gatePauseMax) + 30; opened > most || failed != opened {
			t.Errorf("%d connections, %d failed, want at most %d and all failed", opened, failed, most)
		}
		if lines := logs.lines("authentication refused"); lines < 2 || lines > 11 {
			t.Errorf("%d lines say so, want one a minute:\n%s", lines, logs)
		}
		if strings.Contains(logs.String(), wrongPassword) {
			t.Error("the password is in the log")
		}

		rewrite(t, file, rightPassword)
		begin := time.Now()
		<-count.joined
		if took := time.Since(begin); took > gatePauseMax {
			t.Errorf("took %v after the password was corrected, want at most %v", took, gatePauseMax)
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time; the rest of the connections
		_, failedThen := count.count()
		if failedThen != failed {
			t.Errorf("%d more failures after the password was corrected", failedThen-failed)
		}
	})
}

// A client certificate and the authority are renewed while the service runs: the next connection
// uses them, and a renewal that is half done leaves the old ones in use.
func TestRenewedCertificatesAreUsed(t *testing.T) {
	t.Parallel()
	oldCA, newCA := newAuthority(t, "old ca"), newAuthority(t, "new ca")
	var names []string
	server := oldCA.serverTLS("127.0.0.1")
	fresh := newCA.serverTLS("127.0.0.1")
	server.ClientAuth = tls.RequireAnyClientCert
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
	renewed := make(chan struct{})
	certificates := server.Certificates
	server.Certificates = nil
	server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		select {
		case <-renewed:
			return &fresh.Certificates[0], nil
		default:
			return &certificates[0], nil
		}
	}
	shown := make(chan string, 16)
	server.VerifyConnection = func(state tls.ConnectionState) error {
		shown <- state.PeerCertificates[0].Subject.CommonName
		return nil
	}
	fake := newFake(t, kfake.TLS(server))
	oldCert, oldKey := oldCA.issue("old")
	newCert, newKey := newCA.issue("new")
	caFile, certFile, keyFile := write(t, "ca", oldCA.pem), write(t, "crt", oldCert), write(t, "key", oldKey)
	conf := fake.conf
	conf.TLS = TLS{Enabled: true, CAFile: caFile, CertFile: certFile, KeyFile: keyFile}
	opts, err := conf.Options()
	if err != nil {
		t.Fatal(err)
	}
	connect := func() {
		t.Helper()
		client, err := kgo.NewClient(opts...) // the options were made once, as in a process that runs on
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.Ping(short(t)); err != nil {
			t.Fatal(err)
		}
		names = append(names, <-shown)
	}
	connect()
	rewrite(t, certFile, newCert) // half way: the key is still the old one
	connect()
	rewrite(t, keyFile, newKey)
	rewrite(t, caFile, oldCA.pem+newCA.pem)
	close(renewed)
	connect()
	if got := strings.Join(names, " "); got != "old old new" {
		t.Errorf("the broker was shown %q, want old old new", got)
	}
}

// refuseWrongPasswords makes the fake answer as Kafka does; by itself it hangs up.
func refuseWrongPasswords(cluster *kfake.Cluster) {
	var refuse atomic.Bool // the first message of SCRAM holds the user, the second the proof
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		authenticate := req.(*kmsg.SASLAuthenticateRequest)
		_, password, plain := strings.Cut(strings.TrimPrefix(string(authenticate.SASLAuthBytes), "\x00"), "\x00")
		if plain && password == rightPassword || !plain && !refuse.CompareAndSwap(true, false) {
			refuse.Store(!plain)
			return nil, nil, false
		}
		resp := authenticate.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		resp.ErrorMessage = new("Authentication failed: Invalid username or password")
		return resp, nil, true
	})
}

// listen serves connections with handle until the test ends.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
			handle(conn)
		}
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

// unused is an address where nothing listens.
func unused(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
