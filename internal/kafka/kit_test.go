package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fake is an in-memory cluster.
type fake struct {
	*kfake.Cluster

	conf   Config
	client *kgo.Client // of the super user, where there are users
	admin  *kadm.Client
}

func newFake(t *testing.T, opts ...kfake.Opt) *fake {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return &fake{Cluster: cluster, conf: Config{Brokers: cluster.ListenAddrs()}}
}

// open connects with the fake's configuration.
func (f *fake) open(t *testing.T) *fake {
	t.Helper()
	client, err := f.conf.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	f.client, f.admin = client, kadm.NewClient(client)
	return f
}

// write makes a file and returns its name.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	rewrite(t, file, text)
	return file
}

func rewrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// authority signs certificates for a test.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t: t, certificate: certificate, key: key, pem: encodePEM("CERTIFICATE", der)}
}

// issue makes a certificate for both ends of a connection, valid from now for the given time.
func (a *authority) issue(name string, hosts ...string) (certificate, key string) {
	a.t.Helper()
	return a.issueUntil(name, time.Now().Add(time.Hour), hosts...)
}

func (a *authority) issueUntil(name string, end time.Time, hosts ...string) (certificate, key string) {
	a.t.Helper()
	return a.issueBetween(name, end.Add(-3*time.Hour), end, hosts...)
}

func (a *authority) issueFrom(name string, begin time.Time, hosts ...string) (certificate, key string) {
	a.t.Helper()
	return a.issueBetween(name, begin, begin.Add(time.Hour), hosts...)
}

func (a *authority) issueBetween(name string, begin, end time.Time, hosts ...string) (certificate, key string) {
	a.t.Helper()
	private := newKey(a.t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: begin, NotAfter: end,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", encoded)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// serverTLS is a server that shows a certificate for the hosts.
func (a *authority) serverTLS(hosts ...string) *tls.Config {
	a.t.Helper()
	certificate, key := a.issue("broker", hosts...)
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// attempts is a kgo hook that counts connections and how they began.
type attempts struct {
	mu       sync.Mutex
	opened   int
	failed   int
	lastFail error
	joined   chan struct{} // closed at the first connection that succeeds
}

func newAttempts() *attempts { return &attempts{joined: make(chan struct{})} }

func (a *attempts) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened++
	if err != nil {
		a.failed++
		a.lastFail = err
		return
	}
	select {
	case <-a.joined:
	default:
		close(a.joined)
	}
}

func (a *attempts) count() (opened, failed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened, a.failed
}

// logBuffer is what a test's logger wrote.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) lines(part string) int {
	n := 0
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func newLog() (*logBuffer, *slog.Logger) {
	buffer := &logBuffer{}
	return buffer, slog.New(slog.NewTextHandler(buffer, nil))
}

// failing asserts an error with all the given words in it.
func failing(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q, want %q in it", err, word)
		}
	}
}

// short is a context for something that must not take long.
func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
