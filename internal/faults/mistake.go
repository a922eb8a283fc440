package faults

import (
	"bytes"
	"fmt"
	"strings"
)

// Mistake is something that an operator gets wrong, and what is to be read then. A test makes each mistake and holds what
// it is told against this (Shows), so that the page that is made of it is true.
type Mistake struct {
	ID    string
	Name  string
	Shown string // the message; … stands for what differs
	Next  string // the next step in it
	Test  Test   // makes the mistake
}

// Subject is a group of mistakes.
type Subject struct {
	Title, Where string
	Mistakes     []Mistake
}

// by is the test that makes a mistake.
func by(folder, name string) Test { return Test{Package: folder, Name: "Test" + name} }

// Mistakes is all of them.
func Mistakes() []Subject {
	return []Subject{
		{"Reaching the brokers", "`processor check --connect`, the log and `/readyz` at the start, every command that asks the brokers", reaching},
		{"Topics, rights and versions", "`processor check --connect`, the log and `/readyz` at the start", fitness},
		{"The database", "the log, `processor migrate status`, `/readyz` where an operator has to act", databases},
		{"The process and its configuration", "`processor check`, the end of the process, the answer to a request", process},
	}
}

const probe = "ConnectErrorNamesCauseAndNextStep"

var reaching = []Mistake{
	{"wrong-address", "the address of the brokers is wrong, or they are down", "nothing listens at …", "check kafka.brokers (host and port), and that the brokers are running", by("kafka", probe)},
	{"no-such-host", "the name of a broker is misspelt", "no address for host …", "correct the host in kafka.brokers, or the name service", by("kafka", probe)},
	{"firewall", "a firewall swallows the packets", "no answer from …", "check kafka.brokers, firewalls and network policies", by("kafka", probe)},
	{"tls-missing", "TLS is off and the listener wants it", "the listener speaks TLS, but kafka.tls.enabled is false", "set kafka.tls.enabled to true, or use the port of the plain listener in kafka.brokers", by("kafka", probe)},
	{"sasl-missing", "no user is configured and the listener wants one", "the listener wants SASL, but kafka.sasl.mechanism is empty; it offers …", "set kafka.sasl.mechanism, username and password_file", by("kafka", probe)},
	{"wrong-mechanism", "the listener has other mechanisms", "the broker does not offer the SASL mechanism …, only …", "set kafka.sasl.mechanism to one of them", by("kafka", probe)},
	{"wrong-password", "the password is wrong, has expired or was changed at the broker only", "the broker refuses user … with …", "check kafka.sasl.username and the password in … (kafka.sasl.password_file): it is read again for every connection", by("kafka", probe)},
	{"wrong-ca", "the wrong authority", "the broker's certificate is not signed by an authority in …", "put the authority that signed it into kafka.tls.ca_file", by("kafka", probe)},
	{"wrong-name", "the certificate is for another host name", "the broker's certificate is for another name: …", "use that name in kafka.brokers and advertised.listeners, or set kafka.tls.server_name", by("kafka", probe)},
	{"expired-certificate", "the broker's certificate has expired", "the broker's certificate is not valid: … has expired …", "renew the broker's certificate, and check this machine's clock", by("kafka", "RealPasswordsAndRights")},
	{"clock-behind", "the clock of this machine is behind", "the broker's certificate is not valid: … not yet valid: current time …", "renew the broker's certificate, and check this machine's clock", by("kafka", probe)},
	{"no-client-certificate", "the broker wants a client certificate", "the broker ends the TLS handshake: …", "it may ask for a client certificate: set kafka.tls.cert_file and kafka.tls.key_file", by("kafka", probe)},
}

const preflight = "PreflightNamesWhatIsUnfit"

var fitness = []Mistake{
	{"wrong-topic", "an input topic is misspelt", "input topic … does not exist; there is one named …", "correct routes.topics, or create it with `processor topics apply --create-inputs PARTITIONS`", by("kafka", preflight)},
	{"topics-missing", "`topics apply` was forgotten", "missing: …", "run `processor topics apply`", by("kafka", preflight)},
	{"lanes-changed", "`effects.lanes` was changed", "effects topic … has … partitions, but effects.lanes is …; the number is fixed for life, because the order of calls hangs on it", "set effects.lanes to …", by("kafka", preflight)},
	{"effects-compacted", "somebody compacts the effects topic", "topic …: cleanup.policy is …, want …: compaction would lose effects that are not ingested yet", "run `processor topics plan`, then `processor topics apply`", by("kafka", preflight)},
	{"input-recreated", "an input topic was deleted and made again", "input topic … was deleted and created again: the committed offsets of partitions … belong to its predecessor", "stop all instances, then run `processor offsets set --topic … --all-partitions --to earliest --reason WHY`, or latest", by("kafka", preflight)},
	{"timeout-too-long", "`txn.timeout` is beyond what the brokers allow", "txn.timeout is …, but the brokers allow … (transaction.max.timeout.ms)", "set txn.timeout to at most …, or raise transaction.max.timeout.ms on the brokers", by("kafka", preflight)},
	{"right-missing", "a right was not given", "… no right to Write", "run `kafka-acls.sh --bootstrap-server … --add --allow-principal User:… --operation Write …`", by("kafka", preflight)},
	{"old-brokers", "the brokers are older than Kafka 4.0", "the brokers are older than Kafka 4.0 (by their requests: …); exactly once needs Kafka 4.0 or later with transaction.version 2 (KIP-890)", "upgrade the brokers to Kafka 4.0 or later, then run `kafka-features.sh …`", by("kafka", preflight)},
	{"group-alive", "`offsets set` while a process runs", "group … is … with … members (…)", "stop all instances first", by("kafka", "OffsetsOfALivingGroupAreRefused")},
}

const secured = "DatabaseMustShowWhoItIs"

var databases = []Mistake{
	{"schema-behind", "`migrate up` was forgotten", "the ledger's schema is behind this release: it has version …, want …", "run `processor migrate up`, or start with --migrate", by("app", "SchemaThatIsBehindKeepsTheServiceUnready")},
	{"database-away", "the address of the database is wrong, or it is down", "nothing listens at …", "check host and port in the connection string, and that the server is running", by("postgres", secured)},
	{"database-wrong-password", "the password is wrong or has expired", "the server refuses the user or its password: …", "correct the user and the password in postgres.dsn_file or postgres.dsn; a password may have an end (VALID UNTIL)", by("postgres", secured)},
	{"database-missing", "there is no such database", "database … does not exist", "create the database, or correct its name in postgres.dsn_file or postgres.dsn", by("postgres", secured)},
	{"database-wrong-ca", "the wrong authority", "the server's certificate is not signed by an authority that is trusted here", "set sslrootcert in the connection string to the PEM file of the authority that signed it", by("postgres", secured)},
	{"database-wrong-name", "the certificate is for another host name", "the server's certificate is for another name: …", "use that name as the host in the connection string, or have the certificate made for this one", by("postgres", secured)},
	{"database-expired", "the server's certificate has expired", "the server's certificate is not valid: … has expired …", "renew the server's certificate, and check this machine's clock", by("postgres", secured)},
	{"database-without-tls", "the server has no TLS", "the server has no TLS, but sslmode in the connection string demands it", "turn ssl on in postgresql.conf; sslmode=disable sends everything in the clear", by("postgres", "DatabaseWithoutTLSIsRefused")},
	{"database-disk-full", "the database's disk is full (the test has the server say so; the disk is not filled)", "the server's disk is full: …", "make room on the database's disk; effects wait on their topic meanwhile, and nothing is lost", by("postgres", "DatabaseWithAFullDiskSaysSo")},
}

var process = []Mistake{
	{"two-of-one-name", "two processes have one instance name", "… was taken over 3 times within …: another process runs with the same application and instance name", "give each its own (PROCESSOR_INSTANCE)", by("txn", "Rule4TwinEnds")},
	{"unknown-setting", "a setting is misspelt", "txn.record_max: is an unknown key", "did you mean txn.records_max?", by("cmd/processor", "OperatorsMistakesAreTold")},
	{"private-endpoint", "an endpoint has a private address", "endpoints.payments.url: is an address of this host or of a private network", "to which calls are refused unless allow_private is true", by("cmd/processor", "OperatorsMistakesAreTold")},
	{"password-file-gone", "the file of a password is not there", "kafka.sasl.password_file: … no such file or directory", "correct the file's name, or mount it", by("cmd/processor", "OperatorsMistakesAreTold")},
	{"port-in-use", "two processes on one host have one `admin.listen`", "open admin server: … address already in use", "set another admin.listen or end what holds the port", by("admin", "PortInUseIsTold")},
	{"no-token", "`admin.token_file` was not set", "this is refused because no token is configured", "set admin.token_file (PROCESSOR_ADMIN_TOKEN_FILE) and restart", by("admin", "DrainWithoutAConfiguredTokenIsRefused")},
	{"wrong-token", "the token is wrong", "this needs the header Authorization: Bearer TOKEN", "with the token of admin.token_file", by("admin", "DrainNeedsTheToken")},
}

// tester is what Shows needs of a test.
type tester interface {
	Helper()
	Errorf(format string, arguments ...any)
}

// Shows fails a test where what an operator was told is not what the page of mistakes says: the message and the next
// step.
func Shows(t tester, id, told string) {
	t.Helper()
	for _, subject := range Mistakes() {
		for _, mistake := range subject.Mistakes {
			if mistake.ID != id {
				continue
			}
			for _, part := range []string{mistake.Shown, mistake.Next} {
				if !holds(told, part) {
					t.Errorf("%s: what is told lacks %q:\n%s", id, part, told)
				}
			}
			return
		}
	}
	t.Errorf("there is no mistake %q", id)
}

// holds tells whether the parts of a pattern, between …, stand in a text in their order.
func holds(text, pattern string) bool {
	for part := range strings.SplitSeq(pattern, "…") {
		_, rest, found := strings.Cut(text, part)
		if !found {
			return false
		}
		text = rest
	}
	return true
}

const mistakesPreface = `# Troubleshooting

Mistakes that are easily made, the message that each brings, and the next step that the message names. A test makes every one of the %d
and holds what it is told against this page; … stands for what differs. For what goes wrong by itself see [faults.md](faults.md) and *When it breaks* in
[operating.md](operating.md), for alerts [the runbooks](../deploy/runbooks/README.md).

<!-- Written by the tests of internal/faults: go test ./internal/faults -update -->
`

// Troubleshooting is the mistakes as a page of documentation.
func Troubleshooting(subjects []Subject) []byte {
	var page bytes.Buffer
	all := 0
	for _, subject := range subjects {
		all += len(subject.Mistakes)
	}
	fmt.Fprintf(&page, mistakesPreface, all)
	for _, subject := range subjects {
		fmt.Fprintf(&page, "\n## %s\n\nSeen in %s.\n\n| mistake | message | next step | made by |\n|---|---|---|---|\n", subject.Title, subject.Where)
		for _, m := range subject.Mistakes {
			fmt.Fprintf(&page, "| %s | %s | %s | %s: `%s` |\n", m.Name, m.Shown, m.Next, m.Test.Package, m.Test.Name)
		}
	}
	return page.Bytes()
}
