package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// SuperUser is the user that may do everything when KafkaConfig.ACL is on.
const SuperUser = "admin"

// User may log in with a password.
type User struct {
	Name     string
	Password string
}

// Listener says how clients connect. The zero value is plaintext without authentication.
type Listener struct {
	TLS  *TLS
	SASL *SASL
}

// TLS holds PEM texts, not paths.
type TLS struct {
	Certificate string // chain of the brokers, leaf first
	Key         string // of the leaf, PKCS #8
	ClientCA    string // if not empty, clients must show a certificate signed by it
}

// SASL turns authentication on.
type SASL struct {
	Mechanisms []string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER (takes unsigned tokens)
	Users      []User   // of PLAIN and SCRAM
}

// validate refuses what could not be written into the broker's settings unharmed.
func (l Listener) validate() error {
	if l.SASL == nil {
		return nil
	}
	for _, mechanism := range l.SASL.Mechanisms {
		if !isScram(mechanism) && mechanism != "PLAIN" && mechanism != "OAUTHBEARER" {
			return fmt.Errorf("SASL mechanism %q: want PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", mechanism)
		}
	}
	for _, u := range l.SASL.Users {
		if u.Name == "" || u.Password == "" || strings.ContainsAny(u.Name+u.Password, "\"\\,;=[] \n") {
			return fmt.Errorf("user %q: name and password must not be empty nor hold quotes, backslashes, brackets, commas, semicolons, equals signs or blanks", u.Name)
		}
	}
	return nil
}

func (l Listener) protocol() string {
	switch {
	case l.TLS != nil && l.SASL != nil:
		return "SASL_SSL"
	case l.TLS != nil:
		return "SSL"
	case l.SASL != nil:
		return "SASL_PLAINTEXT"
	default:
		return "PLAINTEXT"
	}
}

// properties are the settings of the CLIENT listener.
func (l Listener) properties() map[string]string {
	const prefix = "listener.name.client."
	settings := map[string]string{}
	if l.TLS != nil {
		settings[prefix+"ssl.keystore.type"] = "PEM"
		settings[prefix+"ssl.keystore.certificate.chain"] = l.TLS.Certificate
		settings[prefix+"ssl.keystore.key"] = l.TLS.Key
		if l.TLS.ClientCA != "" {
			settings[prefix+"ssl.client.auth"] = "required"
			settings[prefix+"ssl.truststore.type"] = "PEM"
			settings[prefix+"ssl.truststore.certificates"] = l.TLS.ClientCA
		}
	}
	if l.SASL == nil {
		return settings
	}
	settings[prefix+"sasl.enabled.mechanisms"] = strings.Join(l.SASL.Mechanisms, ",")
	const modules = "org.apache.kafka.common.security."
	for _, mechanism := range l.SASL.Mechanisms {
		name := prefix + strings.ToLower(mechanism) + ".sasl.jaas.config"
		switch {
		case mechanism == "PLAIN":
			var b strings.Builder
			b.WriteString(modules + "plain.PlainLoginModule required")
			for _, u := range l.SASL.Users {
				fmt.Fprintf(&b, ` user_%s="%s"`, u.Name, u.Password)
			}
			settings[name] = b.String() + ";"
		case isScram(mechanism):
			settings[name] = modules + "scram.ScramLoginModule required;"
		case mechanism == "OAUTHBEARER":
			settings[name] = modules + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`
			settings[prefix+"oauthbearer.sasl.server.callback.handler.class"] =
				modules + "oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
		}
	}
	return settings
}

// formatArguments put the users of SCRAM into the storage when it is formatted: SCRAM credentials
// live in the cluster's metadata, not in a file.
func (l Listener) formatArguments() []string {
	var args []string
	if l.SASL == nil {
		return nil
	}
	for _, mechanism := range l.SASL.Mechanisms {
		if !isScram(mechanism) {
			continue
		}
		for _, u := range l.SASL.Users {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, u.Name, u.Password))
		}
	}
	return args
}

func isScram(mechanism string) bool {
	return slices.Contains([]string{"SCRAM-SHA-256", "SCRAM-SHA-512"}, mechanism)
}
