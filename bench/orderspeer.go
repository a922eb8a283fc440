package main

import (
	"context"
	"fmt"
	"os/exec"
)

const (
	ordersNoLedger = processorName + "-no-ledger"
	ordersPriced   = ".priced" // behind the application's name: its output of order events
	ordersJournals = ".ledger" // and that of ledger entries
)

// ordersPeer is this project with the orders handler: the real binary, which writes two records and one effect for
// each order. With a ledger, the same processes ingest the effects and call for them; without one, the effects wait
// on their topic, and what the ledger takes from the stream can be told.
type ordersPeer struct {
	*processorPeer

	ledger bool
}

func newOrdersPeers(s settings, programs programs) []*ordersPeer {
	return []*ordersPeer{
		{newProcessorPeer(s, programs), true},
		{newProcessorPeer(s, programs), false},
	}
}

func (p *ordersPeer) name() string {
	if p.ledger {
		return processorName
	}
	return ordersNoLedger
}

// config keeps every default but what processorPeer sets too, and the endpoint on loopback.
func (p *ordersPeer) config(j job) string {
	text := fmt.Sprintf(`routes:
  - {topics: [%[1]s], handler: orders}
outputs:
  priced: {topic: %[2]s, partitions: %[3]d}
  ledger: {topic: %[4]s, partitions: %[3]d}
endpoints:
  payments: {url: %[5]q, allow_private: true, concurrency: %[6]d}
`, j.in, j.name+ordersPriced, p.partitions, j.name+ordersJournals, j.url, effectConcurrency)
	if p.ledger {
		text += fmt.Sprintf("postgres: {dsn: %q}\n", j.dsn)
	}
	return processorConfig(j, text) + p.lanesConfig()
}

func (p *ordersPeer) prepare(ctx context.Context, _ *stage, j job) error {
	return prepareProcessor(ctx, p.binary, p.configPath(j), p.config(j))
}

func (p *ordersPeer) commands(ctx context.Context, j job) []*exec.Cmd {
	commands := p.processorPeer.commands(ctx, j)
	if p.ledger {
		for _, command := range commands {
			command.Args = append(command.Args, "--migrate")
		}
	}
	return commands
}
