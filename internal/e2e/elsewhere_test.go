//go:build chaos && !linux

package e2e

import "testing"

func TestFaultsNeedLinux(t *testing.T) {
	t.Skipf("SKIPPED %s and all other tests of this package: they need Linux, for its signals and for /proc", t.Name())
}
