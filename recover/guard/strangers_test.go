package guard

import (
	"fmt"
	"testing"
	"time"
)

func TestEachStrangerHasItsTurnAndAMinuteHasAFew(t *testing.T) {
	var all []string
	for n := range 2*mostStrangers + 7 {
		all = append(all, fmt.Sprint(n))
	}
	var s strangers
	now := time.Unix(1e9, 0)
	seen := map[string]bool{}
	for _, want := range []int{mostStrangers, mostStrangers, 7} {
		before := len(seen)
		for _, at := range []time.Duration{0, time.Second, strangerTime - 1} { // a scan more asks no more
			for uuid := range s.choose(now.Add(at), all) {
				seen[uuid] = true
			}
		}
		if asked := len(seen) - before; asked != want {
			t.Errorf("in a minute Nova was asked about %d new ones, want %d", asked, want)
		}
		now = now.Add(strangerTime)
	}
	if s.choose(now, all[:3]); len(s.last) != 3 {
		t.Errorf("it remembers %d", len(s.last))
	}
}
