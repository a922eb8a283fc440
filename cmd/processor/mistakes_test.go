package main

import (
	"testing"

	"pawl/internal/faults"
)

// Mistakes that are seen before anybody is asked, on the page of mistakes too.
func TestOperatorsMistakesAreTold(t *testing.T) {
	t.Parallel()
	file := writeFile(t, shop)
	for _, test := range []struct {
		mistake string
		args    []string
	}{
		{mistake: "unknown-setting", args: []string{"check", "--set", "txn.record_max=5"}},
		{mistake: "private-endpoint", args: []string{"check", "--set", "endpoints.payments.url=http://10.1.2.3/charges"}},
		{mistake: "password-file-gone", args: []string{
			"lag", "--set", "kafka.sasl.mechanism=PLAIN", "--set", "kafka.sasl.username=anna", "--set", "kafka.sasl.password_file=" + file + ".gone",
		}},
	} {
		got := invoke(t, nil, append(test.args, "-c", file)...)
		if got.code != exitUsage {
			t.Errorf("%s: exit code %d, want %d", test.mistake, got.code, exitUsage)
		}
		faults.Shows(t, test.mistake, got.stdout+got.stderr)
	}
}
