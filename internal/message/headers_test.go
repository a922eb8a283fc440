package message_test

import (
	"strings"
	"testing"

	"pawl/internal/message"
)

// The engine drops what a handler names so; a header of ours without the prefix could be forged.
func TestOurHeadersHaveOurPrefix(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range []string{
		message.HeaderSource, message.HeaderID, message.HeaderReason, message.HeaderError, message.HeaderHandler, message.HeaderRedrive,
		message.HeaderFormat, message.HeaderIndex, message.HeaderEndpoint, message.HeaderBusinessKey, message.HeaderClass,
		message.HeaderTopicID, message.HeaderGeneration,
	} {
		if !strings.HasPrefix(name, message.HeaderPrefix) || seen[name] {
			t.Errorf("%s lacks the prefix %s or is there twice", name, message.HeaderPrefix)
		}
		seen[name] = true
	}
}
