package failpoint_test

import (
	"os/exec"
	"strings"
	"testing"
)

// What is shipped pays nothing for its places: the compiler says that a call of Hit becomes its body,
// which is empty.
func TestHitIsLeftOutOfOrdinaryBuilds(t *testing.T) {
	t.Parallel()
	text, err := exec.CommandContext(t.Context(), "go", "build", "-gcflags=-m", "pawl/internal/failpoint").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	if !strings.Contains(string(text), "can inline Hit") {
		t.Errorf("the compiler does not inline Hit:\n%s", text)
	}
}
