package testkit

import (
	"crypto/rand"
	"strings"
	"testing"
)

const (
	nameMax  = 80 // of the part from the test's name; Kafka allows 249 for a topic
	tailSize = 6
)

// Name makes a name for a topic, a group or a transactional id that no other test and no other run
// uses: from the test's name, the suffix and a random tail. It is valid for all of them.
func Name(tb testing.TB, suffix string) string {
	tb.Helper()
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			return r
		default:
			return '-'
		}
	}, tb.Name())
	if len(name) > nameMax {
		name = name[:nameMax]
	}
	return name + "-" + suffix + "-" + strings.ToLower(rand.Text()[:tailSize])
}
