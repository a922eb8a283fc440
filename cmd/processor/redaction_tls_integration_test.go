//go:build integration

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/testkit"
)

// The two secrets that no process of TestSecretsAppearNowhere has: the token for OAUTHBEARER, quoted by a broker that refuses it, and
// the key of the client's certificate.
func TestTokenAndClientKeyAppearNowhere(t *testing.T) {
	t.Parallel()
	const token = "plant-oauth-token-b7d1"
	authority := testkit.NewAuthority(t)
	certificate, key := authority.Issue(t, "service")
	plants := map[string]string{"token for the brokers": token}
	for i, line := range strings.Split(strings.TrimSpace(key), "\n") {
		if !strings.HasPrefix(line, "-----") {
			plants[fmt.Sprintf("line %d of the client's key", i+1)] = line
		}
	}
	if len(plants) < 3 {
		t.Fatalf("the key has the lines %v: it can't be read right", plants)
	}
	broker, refused := refusesTokens(t, authority, token)
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := write("config.yaml", fmt.Sprintf(`application: vault
instance: one
kafka:
  brokers: [%q]
  tls: {enabled: true, ca_file: %q, cert_file: %q, key_file: %q}
  sasl: {mechanism: OAUTHBEARER, token_file: %q}
routes: [{topics: [raw], handler: copy, config: {output: archive}}]
outputs: {archive: {topic: archive}}
effects: {enabled: false}
`, broker, write("ca", authority.PEM), write("certificate", certificate), write("key", key), write("token", token)))

	seen := &shown{text: map[string]string{}}
	command := func(args ...string) ran {
		got := invoke(t, nil, append(args, "-c", config)...)
		seen.add("processor "+strings.Join(args, " "), got.stdout+got.stderr)
		return got
	}
	for _, args := range [][]string{{"check"}, {"config", "print"}, {"config", "print", "-o", "json"}} {
		if got := command(args...); got.code != exitOK {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if got := command("check", "--connect"); got.code != exitFindings || refused.Load() == 0 || !strings.Contains(got.stdout, "nobody here has the token ***") {
		t.Errorf("the broker refused %d times, and what it said should be told: %+v", refused.Load(), got)
	}
	archive := filepath.Join(folder, "bundle.tar.gz")
	command("bundle", "--admin", "127.0.0.1:1", "--file", archive)
	files, _ := readBundle(t, archive)
	for name, text := range files {
		seen.add("bundle "+name, text)
	}
	if len(files) == 0 {
		t.Error("the bundle is empty: the test shows nothing")
	}
	seen.check(t, plants)
}

// refusesTokens is a broker that wants a certificate of the authority, takes any handshake, and quotes the token that it refuses.
func refusesTokens(t *testing.T, authority *testkit.Authority, token string) (address string, refused *atomic.Int32) {
	t.Helper()
	certificate, key := authority.Issue(t, "broker")
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(authority.PEM))
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.TLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return request.ResponseKind(), nil, true
	})
	refused = new(atomic.Int32)
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if bytes.Contains(request.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, []byte(token)) {
			refused.Add(1)
		}
		answer := request.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		answer.ErrorMessage = new("nobody here has the token " + token)
		return answer, nil, true
	})
	return cluster.ListenAddrs()[0], refused
}
