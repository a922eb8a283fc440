package telemetry

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestTracingSecretsAreAllThatGoesToTheCollector(t *testing.T) {
	t.Parallel()
	got := TracingSecrets(env(
		envHeaders, "api-key=one-key, authorization=Bearer%20two-key,flag", envTracesHeaders, "x=three=key",
		envEndpoint, "https://pawl:four-key@c:4318", envTracesEndpoint, "http://c:4318/v1/traces"))
	want := []string{"Bearer two-key", "Bearer%20two-key", "four-key", "one-key", "three=key", "two-key"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := TracingSecrets(env(envEndpoint, "http://%zz")); len(got) != 0 {
		t.Errorf("of none: %q", got)
	}
}

// A collector that quotes what it was sent gives no secret away, nor the half of one that the end of the line left.
func TestCollectorsAnswerIsToldWithoutSecrets(t *testing.T) {
	t.Parallel()
	const key = "0123456789abcdefghij"
	settings, err := ReadTracing(env(envHeaders, "api-key="+key))
	if err != nil {
		t.Fatal(err)
	}
	queue := newSpanQueue(nil, settings)
	for before := range 320 {
		text := queue.short(errors.New(strings.Repeat("x", before) + " " + key + "\nand more"))
		if strings.Contains(text, key[:4]) || strings.Contains(text, "\n") || len(text) > 300 {
			t.Fatalf("after %d bytes it is told as %q", before, text)
		}
	}
	if got := queue.short(errors.New("refused: api-key " + key)); got != "refused: api-key ***" {
		t.Errorf("it is told as %q", got)
	}
}
