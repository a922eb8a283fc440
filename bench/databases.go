package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"pawl/internal/cluster"
)

// databases is a Postgres server that gives each run a database of its own.
type databases struct {
	server  *cluster.Postgres
	version string
}

// openDatabases starts a server with the machine to itself: room for what is hot, and no checkpoint by
// size within a usual run. fsync and synchronous_commit are on, as by default.
func openDatabases(ctx context.Context, progress func(string)) (*databases, error) {
	server, err := cluster.OpenPostgres(ctx, cluster.PostgresConfig{
		Settings: map[string]string{"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"},
		Durable:  true, Progress: progress,
	})
	if err != nil {
		return nil, err
	}
	d := &databases{server: server}
	err = d.with(ctx, func(connection *pgx.Conn) error {
		return connection.QueryRow(ctx, "SHOW server_version").Scan(&d.version)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the version of Postgres: %w", err), server.Close())
	}
	return d, nil
}

func (d *databases) close() error { return d.server.Close() }

// create makes an empty database and returns its connection string.
func (d *databases) create(ctx context.Context, name string) (dsn string, err error) {
	if err := d.execute(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	return strings.Replace(d.server.DSN(), "/postgres?", "/"+name+"?", 1), nil
}

// drop takes a database away, whoever is connected to it.
func (d *databases) drop(ctx context.Context, name string) error {
	return d.execute(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
}

func (d *databases) execute(ctx context.Context, sql string) error {
	return d.with(ctx, func(connection *pgx.Conn) error {
		if _, err := connection.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		return nil
	})
}

// with connects to the database that the server begins with.
func (d *databases) with(ctx context.Context, work func(*pgx.Conn) error) error {
	connection, err := pgx.Connect(ctx, d.server.DSN())
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	return errors.Join(work(connection), connection.Close(ctx))
}
