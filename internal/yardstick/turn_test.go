package yardstick

import (
	"fmt"
	"strings"
	"testing"
)

func TestPeersTakeTurns(t *testing.T) {
	t.Parallel()
	var got []string
	for turn, p := range Turns(1, 2, []string{"a", "b"}) {
		got = append(got, fmt.Sprintf("%s %s %t %s", turn.Name(), p, turn.Counts(), turn))
	}
	want := []string{
		"warm0-0 a false warm-up", "warm0-1 b false warm-up",
		"1-0 b true round 1 of 2", "1-1 a true round 1 of 2",
		"2-0 a true round 2 of 2", "2-1 b true round 2 of 2",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
