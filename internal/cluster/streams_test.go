//go:build integration

package cluster

import (
	"strings"
	"testing"
)

// A program sees the library on its class path and gets its arguments.
func TestStreamsProgramIsCompiledAndRun(t *testing.T) {
	t.Parallel()
	s, err := OpenStreams(t.Context(), StreamsConfig{
		Class: "Hello", Folder: t.TempDir(), Progress: func(step string) { t.Log(step) },
		Source: `public class Hello {
	public static void main(String[] args) {
		System.out.println(org.apache.kafka.streams.StreamsConfig.EXACTLY_ONCE_V2 + " " + args[0]);
	}
}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Command(t.Context(), fastStart(), "yes").Output()
	if err != nil || strings.TrimSpace(string(out)) != "exactly_once_v2 yes" {
		t.Errorf("the program says %q, %v", out, err)
	}
	if s.Version() != KafkaVersion {
		t.Errorf("version %q, want %s", s.Version(), KafkaVersion)
	}
}

// The compiler's own words reach the person who wrote the program.
func TestStreamsProgramWithAMistakeIsRefused(t *testing.T) {
	t.Parallel()
	_, err := OpenStreams(t.Context(), StreamsConfig{Class: "Wrong", Folder: t.TempDir(), Source: "public class Wrong { Missing m; }"})
	if err == nil || !strings.Contains(err.Error(), "Missing cannot be resolved") {
		t.Errorf("got %v, want what the compiler says", err)
	}
}
