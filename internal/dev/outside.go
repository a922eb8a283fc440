package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pawl/internal/cluster"
)

// How well the endpoint behaves. An answer that is late comes after callTimeout: it is lost, although
// the charge was made.
const (
	endpointPortFirst = 8089
	endpointFail      = 0.05
	endpointLate      = 0.005
	endpointLateBy    = 1200 * time.Millisecond
	endpointDecline   = 0.02
	callTimeout       = "1s"
)

// outside is what effects need: a private Postgres that keeps the ledger, and the endpoint of charges.
type outside struct {
	postgres *cluster.Postgres
	host     string // of Postgres, with its port
	database string
	dsnFile  string
	endpoint *Endpoint
	journal  string

	end  context.CancelFunc // of the endpoint
	gone chan error
}

// openOutside starts both. Without the binaries of Postgres it starts nothing and says why in r.bare.
func (r *rig) openOutside(ctx context.Context, say func(string)) (err error) {
	if err := r.config.postgresMissing(); err != nil {
		r.bare = firstLine(err)
		return nil
	}
	o := &outside{dsnFile: filepath.Join(r.folder, "dsn"), journal: filepath.Join(r.folder, "charges.jsonl")}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if err := o.openPostgres(ctx, r, say); err != nil {
		return err
	}
	port := 0
	if r.config.fixedPorts {
		ports, err := freePorts(ctx, endpointPortFirst, 1)
		if err != nil {
			return err
		}
		port = ports[0]
	}
	if o.endpoint, err = OpenEndpoint(ctx, EndpointConfig{
		Listen: net.JoinHostPort(loopback, strconv.Itoa(port)), Journal: o.journal, Seed: r.seed,
		Fail: endpointFail, Late: endpointLate, LateBy: endpointLateBy, Decline: endpointDecline,
	}); err != nil {
		return err
	}
	// It outlives ctx: processors that end in good order finish their calls.
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	o.end, o.gone = end, make(chan error, 1)
	go func() { o.gone <- o.endpoint.Run(serving) }()
	r.outside = o
	return nil
}

func (o *outside) openPostgres(ctx context.Context, r *rig, say func(string)) (err error) {
	config := cluster.PostgresConfig{Progress: say}
	if r.config.DataDir != "" {
		// The ledger belongs to the topics beside it: the embedded broker and the real one have their own.
		config.Dir = filepath.Join(r.folder, "postgres-"+string(r.broker.kind))
		if err := letPass(r.folder); err != nil {
			return err
		}
	}
	if o.postgres, err = cluster.OpenPostgres(ctx, config); err != nil {
		if errors.Is(err, fs.ErrPermission) && os.Getuid() == 0 {
			err = fmt.Errorf("%w (for root, Postgres runs under another account: the folders above its data must let that pass)", err)
		}
		return err
	}
	dsn := o.postgres.DSN()
	parsed, err := url.Parse(dsn)
	if err != nil {
		return fmt.Errorf("the address of Postgres: %w", errors.Unwrap(err)) // the whole would show the password
	}
	o.host, o.database = parsed.Host, strings.TrimPrefix(parsed.Path, "/")
	if err := os.WriteFile(o.dsnFile, []byte(dsn+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the connection string: %w", err)
	}
	return nil
}

// letPass lets other accounts go through a folder, not look into it: for root, Postgres runs under
// another one.
func letPass(folder string) error {
	if os.Getuid() != 0 {
		return nil
	}
	info, err := os.Stat(folder)
	if err == nil {
		err = os.Chmod(folder, info.Mode().Perm()|0o011)
	}
	if err != nil {
		return fmt.Errorf("let Postgres into its data: %w", err)
	}
	return nil
}

// close ends the endpoint and Postgres. The processors must have ended.
func (o *outside) close() error {
	if o == nil {
		return nil
	}
	var errs []error
	if o.end != nil {
		o.end()
		errs = append(errs, <-o.gone)
		o.end = nil
	}
	if o.postgres != nil {
		errs = append(errs, o.postgres.Close())
	}
	return errors.Join(errs...)
}

// postgresMissing tells why there can be no ledger, nil where there can.
func (c Config) postgresMissing() error {
	if c.postgres != nil {
		return c.postgres()
	}
	return cluster.PostgresAvailable("")
}

// senderHeader is how the endpoint learns which processor calls.
const senderHeader = "Processor"

// instanceArguments are what a processor is told beside its name where there is a ledger.
func (o *outside) instanceArguments(name string) []string {
	if o == nil {
		return nil
	}
	return []string{"--migrate", "--set", "endpoints.payments.headers." + senderHeader + "=" + name}
}
