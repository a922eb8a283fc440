//go:build integration

package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/kafka"
	"pawl/internal/testkit"
)

const (
	servicePassword = "first-battery-staple"
	rotatedPassword = "second-battery-staple"
)

const secureOrder = `{"schema_version":1,"order_id":%q,"customer":{"id":"customer-7","tier":"standard"},"currency":"EUR",` +
	`"placed_at":"2026-11-23T08:00:00Z","lines":[{"sku":"SKU-1","quantity":2,"unit_price":"9.99","tax":"standard"}]}`

// fortress is a broker that lets in only who shows a password over TLS, and lets nobody do anything but what ACLs say,
// with a configuration of the service that uses all there is.
type fortress struct {
	*cluster.Kafka

	conf     Config
	admin    *kadm.Client // may do everything
	password string       // the file
	orders   string       // the input
}

func openFortress(t *testing.T) *fortress {
	t.Helper()
	authority := testkit.NewAuthority(t)
	certificate, key := authority.Issue(t, "broker")
	f := &fortress{Kafka: testkit.OpenKafka(t, cluster.KafkaConfig{
		ACL: true,
		// The broker asks for the password anew each time this has passed (KIP-368).
		Settings: map[string]string{"listener.name.client.scram-sha-512.connections.max.reauth.ms": "2000"},
		// What the authorizer allows, it writes down at this level only.
		JVM: []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=debug"},
		Listener: cluster.Listener{
			TLS: &cluster.TLS{Certificate: certificate, Key: key},
			SASL: &cluster.SASL{
				Mechanisms: []string{"SCRAM-SHA-512"}, Users: []cluster.User{{Name: "service", Password: servicePassword}},
			},
		},
	})}
	client := testkit.Client(t, f.InternalBrokers())
	f.admin = kadm.NewClient(client)
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f.password, f.orders = write("password", servicePassword), "shop.in"
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"charged"}`)
	}))
	t.Cleanup(endpoint.Close)
	f.conf, _ = load(t, LoadOptions{File: writeConfig(t, fmt.Sprintf(`application: shop
instance: one
kafka:
  brokers: [%s]
  session_timeout: 6s
  heartbeat: 1s
  tls: {enabled: true, ca_file: %q}
  sasl: {mechanism: SCRAM-SHA-512, username: service, password_file: %q}
routes: [{topics: [shop.in], handler: orders}, {topics: [shop.effect-results], handler: order-results}]
outputs: {priced: {topic: shop.priced, partitions: 1}, ledger: {topic: shop.ledger, partitions: 1}}
txn: {lanes: 1}
effects: {lanes: 1}
endpoints: {payments: {url: %q, allow_private: true}}
postgres: {dsn: %q}
admin: {listen: "127.0.0.1:0", token_file: %q}
`, f.Brokers()[0], write("ca", authority.PEM), f.password, endpoint.URL, testkit.Postgres(t), write("token", testToken)))})
	makeTopics(t, f.conf, client)
	return f
}

func (f *fortress) rights() []kafka.Right {
	return kafka.Rights(f.conf.KafkaConfig(nil), f.conf.Preflight())
}

// acls is a right as the admin client has it, for one of its operations.
func acls(t *testing.T, right kafka.Right, operation string) *kadm.ACLBuilder {
	t.Helper()
	builder := kadm.NewACLs().Allow("User:service").AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	switch right.Resource {
	case kafka.ResourceTopic:
		builder.Topics(right.Name)
	case kafka.ResourceGroup:
		builder.Groups(right.Name)
	case kafka.ResourceTransactionalID:
		builder.TransactionalIDs(right.Name)
	}
	if right.Prefixed {
		builder.ResourcePatternType(kadm.ACLPatternPrefixed)
	}
	switch operation {
	case "Read":
		builder.Operations(kadm.OpRead)
	case "Write":
		builder.Operations(kadm.OpWrite)
	case "DescribeConfigs":
		builder.Operations(kadm.OpDescribeConfigs)
	case "Describe":
		builder.Operations(kadm.OpDescribe)
	default:
		t.Fatalf("right %+v: operation %s", right, operation)
	}
	return builder
}

func (f *fortress) grant(t *testing.T, right kafka.Right, operation string) {
	t.Helper()
	answer, err := f.admin.CreateACLs(t.Context(), acls(t, right, operation))
	if err != nil || len(answer) != 1 || answer[0].Err != nil {
		t.Fatalf("grant %+v: %+v, %v", right, answer, err)
	}
}

func (f *fortress) takeAway(t *testing.T, right kafka.Right, operation string) {
	t.Helper()
	answer, err := f.admin.DeleteACLs(t.Context(), acls(t, right, operation))
	if err != nil || len(answer) != 1 || answer[0].Err != nil || len(answer[0].Deleted) != 1 {
		t.Fatalf("take away %s of %+v: %+v, %v", operation, right, answer, err)
	}
}

// order sends one order and waits until what came of its charge is through as well: from input to endpoint and back.
func (f *fortress) order(t *testing.T, id string) {
	t.Helper()
	told := testkit.EndOffsets(t, f.InternalBrokers(), f.conf.ResultsTopic())[0]
	testkit.Produce(t, f.InternalBrokers(), &kgo.Record{Topic: f.orders, Key: []byte(id), Value: fmt.Appendf(nil, secureOrder, id)})
	testkit.WaitFor(t, patience, "the result of "+id, func() bool {
		next := testkit.CommittedOffsets(t, f.InternalBrokers(), f.conf.Group(), f.conf.ResultsTopic())[0]
		return next > told
	})
}

// auditForm is a line of the authorizer.
var auditForm = regexp.MustCompile(`Principal = User:service is (Allowed|Denied) operation = (\w+) from host = \S+ on resource = (\w+):LITERAL:(\S+) for request = (\w+)`)

// audited gives what the service was allowed and denied, as "resource name operation".
func (f *fortress) audited(t *testing.T) (allowed, denied map[string]string) {
	t.Helper()
	file, err := os.Open(f.LogPath(0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	allowed, denied = map[string]string{}, map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := auditForm.FindStringSubmatch(lines.Text())
		if line == nil {
			continue
		}
		said := denied
		if line[1] == "Allowed" {
			said = allowed
		}
		said[strings.ToLower(line[3]+" "+line[4]+" "+strings.ReplaceAll(line[2], "_", ""))] = line[5]
	}
	return allowed, denied
}

// The table of rights in docs/security.md is what the service needs: with it everything works, from the input to the
// endpoint and back; each row is used; without any part of a row the preflight names it. On the way the password is
// replaced under the running service.
func TestServiceNeedsItsTableOfRightsAndNoMore(t *testing.T) {
	t.Parallel()
	f := openFortress(t)
	for _, right := range f.rights() {
		for _, operation := range right.Operations {
			f.grant(t, right, operation)
		}
	}
	r := run(t, f.conf, Options{Migrate: true})
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	testkit.Produce(t, f.InternalBrokers(), &kgo.Record{Topic: f.orders, Value: []byte("no order")})
	f.order(t, "o-1")
	if letters := testkit.ReadCommitted(t, f.InternalBrokers(), f.conf.DeadLetterTopic()); len(letters) != 1 {
		t.Errorf("%d dead letters, want 1", len(letters))
	}
	r.end()
	r = run(t, f.conf, Options{}) // reads what the first one has left
	r.line("starting")
	testRotation(t, f, r)
	r.end()
	testUsedRights(t, f)
	testMissingRights(t, f)
}

// courtesies are looked at where that is allowed, and nobody misses them: the brokers' limit of a transaction's timeout,
// and whether an input is kept safely.
var courtesies = []string{"cluster kafka-cluster describeconfigs", "topic shop.in describeconfigs"}

// testUsedRights asks the authorizer's log.
func testUsedRights(t *testing.T, f *fortress) {
	t.Helper()
	allowed, denied := f.audited(t)
	for what, request := range denied {
		if !slices.Contains(courtesies, what) {
			t.Errorf("the service has tried what the table does not give: %s (%s)", what, request)
		}
	}
	used := 0
	for _, right := range f.rights() {
		for _, operation := range right.Operations {
			if right.Name == f.conf.ControlTopic() && operation == "Write" {
				continue // only a record that has cost three tries is noted there
			}
			resource := strings.ReplaceAll(string(right.Resource), "-", "")
			if !slices.ContainsFunc(slices.Collect(maps.Keys(allowed)), func(what string) bool {
				return what == strings.ToLower(resource+" "+right.Name+" "+operation) ||
					right.Prefixed && strings.HasPrefix(what, resource+" "+right.Name) && strings.HasSuffix(what, " "+strings.ToLower(operation))
			}) {
				t.Errorf("the table gives %s on %s %s, which nobody has used", operation, right.Resource, right.Name)
			}
			used++
		}
	}
	t.Logf("%d rights used, of %d kinds of requests allowed; denied: %v", used, len(allowed), denied)
}

// testRotation replaces the password at the broker first, as many do: the service is locked out, says so, and goes on
// by itself once the file has the new one.
func testRotation(t *testing.T, f *fortress, r *running) {
	t.Helper()
	answer, err := f.admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{
		User: "service", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: rotatedPassword,
	}})
	if err != nil || answer["service"].Err != nil {
		t.Fatalf("replace the password: %+v, %v", answer, err)
	}
	line := r.line("kafka authentication refused")
	if !strings.Contains(line.Next, f.password) || !strings.Contains(line.Next, "kafka.sasl.password_file") {
		t.Errorf("the refusal names no next step: %+v", line)
	}
	if strings.Contains(fmt.Sprint(line), servicePassword) {
		t.Errorf("the password is shown: %+v", line)
	}
	if err := os.WriteFile(f.password, []byte(rotatedPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	f.order(t, "o-2")
}

// testMissingRights takes each operation of each row away in turn.
func testMissingRights(t *testing.T, f *fortress) {
	t.Helper()
	look := func() []kafka.Finding {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return slices.DeleteFunc(kafka.Preflight(ctx, f.conf.KafkaConfig(nil), f.conf.Preflight()), func(finding kafka.Finding) bool { return finding.Status == kafka.OK })
	}
	if found := look(); len(found) > 0 {
		t.Fatalf("with all rights the preflight says %+v", found)
	}
	taken := 0
	for _, right := range f.rights() {
		for _, operation := range right.Operations {
			f.takeAway(t, right, operation)
			taken++
			var found []kafka.Finding
			named := func() bool {
				found = look()
				return slices.ContainsFunc(found, func(finding kafka.Finding) bool {
					return strings.Contains(finding.Next, "--operation "+operation) && strings.Contains(finding.Next, "--"+string(right.Resource)+" "+right.Name) &&
						strings.Contains(finding.Next, "--allow-principal User:service")
				})
			}
			testkit.WaitFor(t, patience, fmt.Sprintf("word of %s on %s %s", operation, right.Resource, right.Name), named)
			for _, finding := range found {
				if !strings.Contains(finding.Detail+finding.Next, right.Name) {
					t.Errorf("without %s on %s, the preflight also says %+v", operation, right.Name, finding)
				}
			}
			f.grant(t, right, operation)
			testkit.WaitFor(t, patience, "a preflight that finds nothing again", func() bool { return len(look()) == 0 })
		}
	}
	t.Logf("%d rights taken away and named", taken)
}
