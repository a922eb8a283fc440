//go:build integration

package testkit

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What a program leaves in its session is somewhere else in its next transaction: that is what tests
// open a pooler for.
func TestAPoolerGivesEachTransactionAnotherConnection(t *testing.T) {
	t.Parallel()
	ctx, dsn := t.Context(), PgBouncer(t, Postgres(t))
	var clients []*pgx.Conn
	for range 3 {
		client, err := pgx.Connect(ctx, dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing depends on it
		if _, err := client.Exec(ctx, "begin"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	for _, client := range clients { // now the pooler has three connections of the server
		if _, err := client.Exec(ctx, "rollback"); err != nil {
			t.Fatal(err)
		}
	}
	backends := map[int]bool{}
	for range 3 {
		var pid int
		if err := clients[0].QueryRow(ctx, "select pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		backends[pid] = true
	}
	if len(backends) != 3 {
		t.Errorf("three transactions of one client ran on the connections %v", backends)
	}
}
