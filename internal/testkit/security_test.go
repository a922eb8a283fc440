//go:build integration

package testkit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"pawl/internal/cluster"
)

// unsignedToken makes a token as the unsecured validator takes it: header and claims, no signature.
func unsignedToken(subject string) string {
	encode := base64.RawURLEncoding.EncodeToString
	now := time.Now().Unix()
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, subject, now, now+600)
	return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(claims)) + "."
}

// One listener with everything: TLS with a client certificate, all mechanisms, and an authorizer that
// lets nobody do anything but what ACLs say.
func TestKafkaListenerAuthenticates(t *testing.T) {
	t.Parallel()
	authority := NewAuthority(t)
	certificate, key := authority.Issue(t, "broker")
	k := OpenKafka(t, cluster.KafkaConfig{
		ACL: true,
		Listener: cluster.Listener{
			TLS: &cluster.TLS{Certificate: certificate, Key: key, ClientCA: authority.PEM},
			SASL: &cluster.SASL{
				Mechanisms: []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"},
				Users:      []cluster.User{{Name: "reader", Password: "secret"}, {Name: cluster.SuperUser, Password: "all"}},
			},
		},
	})
	clientCertificate, clientKey := authority.Issue(t, "client")
	pair, err := tls.X509KeyPair([]byte(clientCertificate), []byte(clientKey))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(authority.PEM))
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}
	connect := func(config *tls.Config, mechanism sasl.Mechanism) (*kgo.Client, error) {
		client := Client(t, k.Brokers(), kgo.DialTLSConfig(config), kgo.SASL(mechanism), kgo.RetryTimeout(3*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return client, client.Ping(ctx)
	}

	for name, mechanism := range map[string]sasl.Mechanism{
		"PLAIN":         plain.Auth{User: "reader", Pass: "secret"}.AsMechanism(),
		"SCRAM-SHA-256": scram.Auth{User: "reader", Pass: "secret"}.AsSha256Mechanism(),
		"SCRAM-SHA-512": scram.Auth{User: "reader", Pass: "secret"}.AsSha512Mechanism(),
		"OAUTHBEARER":   oauth.Auth{Token: unsignedToken("reader")}.AsMechanism(),
	} {
		if _, err := connect(config, mechanism); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := connect(config, plain.Auth{User: "reader", Pass: "wrong"}.AsMechanism()); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("wrong password: %v", err)
	}
	bare := config.Clone()
	bare.Certificates = nil
	if _, err := connect(bare, plain.Auth{User: "reader", Pass: "secret"}.AsMechanism()); err == nil {
		t.Error("connected without a client certificate")
	}

	topic := Name(t, "topic")
	reader, err := connect(config, plain.Auth{User: "reader", Pass: "secret"}.AsMechanism())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(reader).CreateTopic(t.Context(), 1, -1, nil, topic); !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		t.Errorf("a reader made a topic: %v", err)
	}
	admin, err := connect(config, plain.Auth{User: cluster.SuperUser, Pass: "all"}.AsMechanism())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(admin).CreateTopic(t.Context(), 1, -1, nil, topic); err != nil {
		t.Errorf("the super user made no topic: %v", err)
	}
	Produce(t, k.InternalBrokers(), &kgo.Record{Topic: topic, Value: []byte("around")})
	if got := ReadCommitted(t, k.InternalBrokers(), topic); len(got) != 1 {
		t.Errorf("%d records through the internal listener, want 1", len(got))
	}
}
