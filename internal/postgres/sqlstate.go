package postgres

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATE codes that callers act on (PostgreSQL manual, appendix A).
const (
	ReadOnlyTransaction   = "25006"
	InvalidAuthorization  = "28000"
	InvalidPassword       = "28P01"
	InvalidCatalogName    = "3D000"
	DiskFull              = "53100"
	TooManyConnections    = "53300"
	NotNullViolation      = "23502"
	UniqueViolation       = "23505"
	SerializationFailure  = "40001"
	DeadlockDetected      = "40P01"
	InsufficientPrivilege = "42501"
	UndefinedTable        = "42P01"
	DuplicateSchema       = "42P06"
	DuplicateTable        = "42P07"
	InvalidSchemaName     = "3F000"
	LockNotAvailable      = "55P03"
	QueryCanceled         = "57014"
	AdminShutdown         = "57P01"
)

// Code returns the SQLSTATE of an error, empty where it does not come from a server.
func Code(err error) string {
	if answer, is := errors.AsType[*pgconn.PgError](err); is {
		return answer.Code
	}
	return ""
}
