package kafka

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Every problem is named by its setting, and all come at once.
func TestConfigReportsEveryProblemBySetting(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	certificate, key := ca.issue("client")
	_, otherKey := ca.issue("other")
	missing := filepath.Join(t.TempDir(), "missing")
	empty := write(t, "empty", "\n")
	password := write(t, "password", "secret\n")
	certFile, keyFile, otherKeyFile := write(t, "crt", certificate), write(t, "key", key), write(t, "other", otherKey)
	token := func(claims string) string {
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
	}
	for name, test := range map[string]struct {
		conf  Config
		words []string
	}{
		"no brokers":           {Config{}, []string{"kafka.brokers is empty"}},
		"no port":              {Config{Brokers: []string{"kafka"}}, []string{`"kafka" is not host:port`}},
		"bad port":             {Config{Brokers: []string{"kafka:99999"}}, []string{`"kafka:99999" is not host:port`}},
		"no host":              {Config{Brokers: []string{":9092"}}, []string{`":9092" is not host:port`}},
		"tls not enabled":      {Config{TLS: TLS{CAFile: "x"}}, []string{"kafka.tls.enabled is false"}},
		"ca missing":           {Config{TLS: TLS{Enabled: true, CAFile: missing}}, []string{"kafka.tls.ca_file", "no such file"}},
		"ca is no pem":         {Config{TLS: TLS{Enabled: true, CAFile: password}}, []string{"kafka.tls.ca_file", "no usable PEM certificate"}},
		"certificate alone":    {Config{TLS: TLS{Enabled: true, CertFile: certFile}}, []string{"kafka.tls.cert_file is set without kafka.tls.key_file"}},
		"key alone":            {Config{TLS: TLS{Enabled: true, KeyFile: keyFile}}, []string{"kafka.tls.key_file is set without kafka.tls.cert_file"}},
		"pair missing":         {Config{TLS: TLS{Enabled: true, CertFile: missing, KeyFile: missing}}, []string{"kafka.tls.cert_file: open", "kafka.tls.key_file: open"}},
		"pair does not match":  {Config{TLS: TLS{Enabled: true, CertFile: certFile, KeyFile: otherKeyFile}}, []string{"kafka.tls.cert_file", "private key does not match"}},
		"key is encrypted":     {Config{TLS: TLS{Enabled: true, CertFile: certFile, KeyFile: write(t, "enc", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")}}, []string{"the key is encrypted"}},
		"mechanism missing":    {Config{SASL: SASL{Username: "pawl"}}, []string{"kafka.sasl.mechanism is empty"}},
		"mechanism unknown":    {Config{SASL: SASL{Mechanism: "GSSAPI", Username: "pawl", PasswordFile: password}}, []string{`kafka.sasl.mechanism is "GSSAPI", want PLAIN`}},
		"no username":          {Config{SASL: SASL{Mechanism: "PLAIN", PasswordFile: password}}, []string{"kafka.sasl.username is empty"}},
		"no password file":     {Config{SASL: SASL{Mechanism: "PLAIN", Username: "pawl"}}, []string{"kafka.sasl.password_file is empty"}},
		"password missing":     {Config{SASL: SASL{Mechanism: "SCRAM-SHA-256", Username: "pawl", PasswordFile: missing}}, []string{"kafka.sasl.password_file", "no such file"}},
		"password empty":       {Config{SASL: SASL{Mechanism: "SCRAM-SHA-512", Username: "pawl", PasswordFile: empty}}, []string{"kafka.sasl.password_file", "is empty"}},
		"password is too long": {Config{SASL: SASL{Mechanism: "PLAIN", Username: "pawl", PasswordFile: write(t, "long", strings.Repeat("x", secretBytesMax+1))}}, []string{"which is no secret"}},
		"no token file":        {Config{SASL: SASL{Mechanism: "OAUTHBEARER"}}, []string{"kafka.sasl.token_file is empty"}},
		"two tokens":           {Config{SASL: SASL{Mechanism: "OAUTHBEARER", TokenFile: write(t, "two", "a\nb\n")}}, []string{"more than one token"}},
		"token expired":        {Config{SASL: SASL{Mechanism: "OAUTHBEARER", TokenFile: write(t, "old", token(`{"exp":1000000000}`))}}, []string{"expired at 2001-09-09T01:46:40Z"}},
		"several": {
			Config{Brokers: []string{"kafka"}, TLS: TLS{Enabled: true, CAFile: missing}, SASL: SASL{Mechanism: "PLAIN"}},
			[]string{"kafka.brokers", "kafka.tls.ca_file", "kafka.sasl.username", "kafka.sasl.password_file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.conf.Brokers == nil && name != "no brokers" {
				test.conf.Brokers = []string{"localhost:9092"}
			}
			err := test.conf.Validate()
			failing(t, err, test.words...)
			for _, secret := range []string{"secret\n", "PRIVATE KEY-----\nM"} {
				if strings.Contains(fmt.Sprint(err), secret) {
					t.Errorf("error %q shows a secret", err)
				}
			}
		})
	}
	good := Config{
		Brokers:  []string{"kafka-1:9092", "[::1]:9093"},
		ClientID: "app.one", Version: "v1.2.3-rc.1+dirty",
		TLS:  TLS{Enabled: true, CAFile: write(t, "ca", ca.pem), CertFile: certFile, KeyFile: keyFile, ServerName: "kafka"},
		SASL: SASL{Mechanism: "oauthbearer", TokenFile: write(t, "new", token(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix())))},
	}
	opts, err := good.Options()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}

func TestSoftwareVersionIsWhatBrokersAccept(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "dev", "v1.2.3": "v1.2.3", "1.2+dirty": "1.2-dirty", "(devel)": "devel", "...": "dev", "v1.0-": "v1.0", "1 2\n": "1-2",
	} {
		if got := softwareVersion(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
