package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// preflightTimeout bounds all checks together.
const preflightTimeout = 60 * time.Second

// Status is the verdict of one check.
type Status string

// The verdicts. A problem refuses readiness. Something degraded works now but with less safety, or
// could not be looked at. A verdict on a thing we are not allowed to see is a problem only where
// the service would need that right itself.
const (
	OK       Status = "ok"
	Degraded Status = "degraded"
	Problem  Status = "problem"
)

// The names of the checks, a closed set.
const (
	CheckBrokers      = "brokers"
	CheckTransactions = "transactions"
	CheckTopics       = "topics"
	CheckSettings     = "settings"
	CheckReplication  = "replication"
	CheckRights       = "rights"
	CheckOffsets      = "offsets"
)

// Finding is what one check has to say.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"` // what to run or change; empty when all is well
}

// Spec is what the service needs of a cluster.
type Spec struct {
	Application        string        // prefix of transactional ids, for the messages
	Group              string        // consumer group; empty skips its checks
	LedgerGroup        string        // consumer group of the effects topic; empty where this process has no ledger
	Topics             []Topic       // inputs, outputs and internal ones
	Inputs             []string      // topics that are read, whatever their role; those of RoleInput always are
	TransactionalIDs   []string      // ids whose use is to be checked; a few stand for all with their prefix
	TransactionTimeout time.Duration // zero skips the check

	// ParseMetadata reads the input topic's id out of a committed offset's metadata; ok is false for
	// metadata that is not the engine's. Nil skips the check.
	ParseMetadata func(text string) (topicID [16]byte, ok bool)
}

// Failed gives the problems among findings as one error, nil where there are none.
func Failed(findings []Finding) error {
	var errs []error
	for _, finding := range findings {
		if finding.Status == Problem {
			errs = append(errs, fmt.Errorf("%s: %s: %s", finding.Check, finding.Detail, finding.Next))
		}
	}
	return errors.Join(errs...)
}

// Preflight checks whether the cluster is fit for the service. It changes nothing, runs every check
// that it can, and reports all problems at once. Each check that finds nothing wrong says so in one
// finding. It ends within preflightTimeout or with ctx.
func Preflight(ctx context.Context, conf Config, spec Spec) []Finding {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	conf.Log = nil // what the client library would log is what the findings say
	client, err := conf.Open(ctx)
	if err != nil {
		finding := Finding{Check: CheckBrokers, Status: Problem, Detail: err.Error(), Next: "correct the configuration"}
		if connect, ok := errors.AsType[*ConnectError](err); ok {
			finding.Detail, finding.Next = connect.Detail, connect.Next
		}
		return []Finding{finding}
	}
	defer client.Close()
	return newPreflight(client, conf, spec).run(ctx)
}

// preflight is the state of one Preflight.
type preflight struct {
	client *kgo.Client
	conf   Config
	spec   Spec
	acls   acls
	topics []Topic // each name once
	seen   map[string]*seenTopic
	nodes  int   // brokers in the cluster
	node   int32 // one that answers; -1 before one did

	weak, unclean []string // topics whose settings let acknowledged records be lost

	findings []Finding
}

func newPreflight(client *kgo.Client, conf Config, spec Spec) *preflight {
	return &preflight{client: client, conf: conf, spec: spec, acls: acls{conf: conf}, topics: ownFirst(spec.Topics), node: -1}
}

func (p *preflight) run(ctx context.Context) []Finding {
	p.section(ctx, CheckBrokers, "all brokers answer", p.checkBrokers)
	if p.node < 0 {
		return p.findings // nobody to ask
	}
	p.section(ctx, CheckTransactions, "transaction.version is 2 or later", p.checkTransactions)
	p.section(ctx, CheckTopics, fmt.Sprintf("all %d topics exist", len(p.topics)), p.checkTopics)
	p.section(ctx, CheckSettings, "topic settings are as configured", p.checkSettings)
	p.section(ctx, CheckReplication, "replicas are in sync", p.checkReplication)
	p.section(ctx, CheckRights, "all rights are there", p.checkRights)
	if p.spec.Group != "" {
		p.section(ctx, CheckOffsets, "committed offsets belong to the topics", p.checkOffsets)
	}
	return p.findings
}

// section runs one check; where it reported nothing, it says that all is well.
func (p *preflight) section(ctx context.Context, check, fine string, look func(context.Context) error) {
	before := len(p.findings)
	if err := look(ctx); err != nil {
		p.interrupted(ctx, check, err)
	}
	if len(p.findings) == before {
		p.report(check, OK, fine, "")
	}
}

// interrupted reports a check that did not get through. Whatever keeps a first connection out may keep out a later
// one as well: a certificate that has expired since, a password that was changed.
func (p *preflight) interrupted(ctx context.Context, check string, err error) {
	detail, next := p.conf.explainConnection(ctx, err)
	if detail == "" {
		detail, next = fmt.Sprintf("the check did not get through: %v", err), "run `processor check --connect` again; if it persists, look at the brokers' logs"
	}
	p.report(check, Problem, detail, next)
}

func (p *preflight) report(check string, status Status, detail, next string) {
	p.findings = append(p.findings, Finding{Check: check, Status: status, Detail: detail, Next: next})
}

// checkBrokers connects to every broker under the address it advertises: bootstrap addresses
// often work where those do not. One broker that is away is no reason to stay away: that is what
// replicas are for.
func (p *preflight) checkBrokers(ctx context.Context) error {
	nodes, err := requestBrokers(ctx, p.client)
	if err != nil {
		return err
	}
	p.nodes = len(nodes)
	errs := make([]error, len(nodes))
	var wait sync.WaitGroup
	for i, node := range nodes {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			errs[i] = ping(ctx, p.client, node.NodeID)
		})
	}
	wait.Wait()
	status := Problem
	if i := slices.Index(errs, nil); i >= 0 {
		p.node, status = nodes[i].NodeID, Degraded
	}
	for i, node := range nodes {
		if errs[i] == nil {
			continue
		}
		address := net.JoinHostPort(node.Host, strconv.Itoa(int(node.Port)))
		there := p.conf
		there.Brokers = []string{address}
		why := there.explain(ctx, errs[i])
		p.report(CheckBrokers, status,
			fmt.Sprintf("broker %d advertises %s, and from here: %s", node.NodeID, address, why.Detail),
			"start the broker, or correct its advertised.listeners; "+why.Next)
	}
	return nil
}

// checkTransactions asks for what makes hanging and zombie transactions impossible (KIP-890): the
// requests that raise the epoch with every transaction, and the feature that turns them on.
func (p *preflight) checkTransactions(ctx context.Context) error {
	known, err := requestVersions(ctx, p.client)
	if err != nil {
		return err
	}
	server := strings.Join(p.conf.Brokers, ",")
	switch {
	case !known.speaksTransactionsV2():
		p.report(CheckTransactions, Problem,
			fmt.Sprintf("the brokers are older than Kafka 4.0 (by their requests: %s); exactly once needs Kafka 4.0 or later with transaction.version 2 (KIP-890)", known.release()),
			"upgrade the brokers to Kafka 4.0 or later, then run `kafka-features.sh --bootstrap-server "+server+" upgrade --feature transaction.version=2`")
	case known.transactions < transactionVersionMin:
		p.report(CheckTransactions, Problem,
			fmt.Sprintf("the brokers are Kafka 4.0 or later, but the finalised feature transaction.version is %d, want %d", max(known.transactions, 0), transactionVersionMin),
			"run `kafka-features.sh --bootstrap-server "+server+" upgrade --feature transaction.version=2`")
	}
	if p.spec.TransactionTimeout <= 0 {
		return nil
	}
	longest, ok, err := p.transactionTimeoutMax(ctx)
	if err != nil || !ok {
		return err
	}
	if p.spec.TransactionTimeout > longest {
		p.report(CheckTransactions, Problem,
			fmt.Sprintf("txn.timeout is %s, but the brokers allow %s (transaction.max.timeout.ms)", p.spec.TransactionTimeout, longest),
			fmt.Sprintf("set txn.timeout to at most %s, or raise transaction.max.timeout.ms on the brokers", longest))
	}
	return nil
}

// transactionTimeoutMax reads the brokers' limit. ok is false where we may not see it: then a
// timeout beyond it is refused with the first transaction.
func (p *preflight) transactionTimeoutMax(ctx context.Context) (longest time.Duration, ok bool, err error) {
	configs, err := requestConfigs(ctx, p.client, brokerResource(p.node))
	if err != nil {
		return 0, false, err
	}
	for _, config := range configs {
		if value, found := config.values["transaction.max.timeout.ms"]; found && config.err == nil {
			millis, err := strconv.ParseInt(value.text, 10, 64)
			if err != nil {
				return 0, false, fmt.Errorf("read transaction.max.timeout.ms: %w", err)
			}
			return time.Duration(millis) * time.Millisecond, true, nil
		}
	}
	return 0, false, nil
}

// Summary counts findings by status.
func Summary(findings []Finding) string {
	var ok, degraded, problems int
	for _, finding := range findings {
		switch finding.Status {
		case OK:
			ok++
		case Degraded:
			degraded++
		case Problem:
			problems++
		}
	}
	return fmt.Sprintf("%d ok, %d degraded, %d problems", ok, degraded, problems)
}
