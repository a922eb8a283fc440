package postgres

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// ConnectError says why the database does not let us in or does not work, and what to do about it.
type ConnectError struct {
	Detail string // what is wrong
	Next   string // what to change or run
	Err    error  // what the driver saw
}

func (e *ConnectError) Error() string { return fmt.Sprintf("postgres: %s: %s", e.Detail, e.Next) }

func (e *ConnectError) Unwrap() error { return e.Err }

// explain turns what the driver saw into what an operator can act on. What it does not know it leaves as it is.
func explain(err error) error {
	if err == nil {
		return nil
	}
	for _, look := range []func(error) (detail, next string){explainTLS, explainAnswer, explainNetwork} {
		if detail, next := look(err); detail != "" {
			return &ConnectError{Detail: detail, Next: next, Err: err}
		}
	}
	return err
}

func explainTLS(err error) (detail, next string) {
	var (
		unknown *x509.UnknownAuthorityError
		unk     x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown), errors.As(err, &unk):
		return "the server's certificate is not signed by an authority that is trusted here",
			"set sslrootcert in the connection string to the PEM file of the authority that signed it"
	case errors.As(err, &host):
		return "the server's certificate is for another name: " + host.Error(),
			"use that name as the host in the connection string, or have the certificate made for this one"
	case errors.As(err, &invalid):
		return "the server's certificate is not valid: " + invalid.Error(), "renew the server's certificate, and check this machine's clock"
	case errors.Is(err, errRefusedTLS), strings.Contains(err.Error(), errRefusedTLS.Error()):
		return "the server has no TLS, but sslmode in the connection string demands it",
			"turn ssl on in postgresql.conf; sslmode=disable sends everything in the clear"
	default:
		return "", ""
	}
}

// errRefusedTLS has the text of the driver's error, which it does not export.
var errRefusedTLS = errors.New("server refused TLS connection")

// explainAnswer is for what the server itself says (PostgreSQL manual, appendix A).
func explainAnswer(err error) (detail, next string) {
	answer, is := errors.AsType[*pgconn.PgError](err)
	if !is {
		return "", ""
	}
	switch answer.Code {
	case InvalidPassword:
		return "the server refuses the user or its password: " + answer.Message,
			"correct the user and the password in postgres.dsn_file or postgres.dsn; a password may have an end (VALID UNTIL)"
	case InvalidAuthorization:
		return "the server does not let us in: " + answer.Message, "allow this host, user and database in pg_hba.conf, as hostssl where TLS is used"
	case InvalidCatalogName:
		return answer.Message, "create the database, or correct its name in postgres.dsn_file or postgres.dsn"
	case TooManyConnections:
		return "the server has no connection left: " + answer.Message, "lower postgres.connections, raise max_connections, or put a pooler between"
	case DiskFull:
		return "the server's disk is full: " + answer.Message, "make room on the database's disk; effects wait on their topic meanwhile, and nothing is lost"
	case InsufficientPrivilege:
		return "a right is missing: " + answer.Message, "run `processor migrate up` as the owner, and give the roles their rights with `processor migrate roles`"
	case ReadOnlyTransaction:
		return "the server takes no changes: " + answer.Message, "point the connection string to the primary, with target_session_attrs=read-write where several hosts are named"
	default:
		return "", ""
	}
}

func explainNetwork(err error) (detail, next string) {
	var (
		connect *pgconn.ConnectError
		name    *net.DNSError
		timeout net.Error
	)
	if !errors.As(err, &connect) {
		return "", "" // it was connected
	}
	where := net.JoinHostPort(connect.Config.Host, strconv.Itoa(int(connect.Config.Port)))
	switch {
	case errors.As(err, &name):
		return fmt.Sprintf("no address for host %q", name.Name), "correct the host in the connection string, or the name service"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at " + where, "check host and port in the connection string, and that the server is running"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer from " + where, "check host and port in the connection string, firewalls and network policies"
	default:
		return "", ""
	}
}
