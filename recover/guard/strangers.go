package guard

import (
	"maps"
	"slices"
	"time"
)

// Strangers are instances that neither libvirt nor a record of the guard knows: directories that
// are called like instances. Nova's user can make any number of them, and remove them again.
const (
	mostStrangers = 120 // that Nova is asked about in one strangerTime
	strangerTime  = time.Minute
)

// strangers bounds the questions to Nova about strangers. It is of the guard's judgements, one
// after the other.
type strangers struct {
	last  map[string]time.Time // when Nova was asked about one
	begun time.Time            // of the current strangerTime
	asked int                  // in it
}

// choose returns those that Nova may be asked about now: first those that it was not asked about
// for the longest time, so that each has its turn.
func (s *strangers) choose(now time.Time, uuids []string) map[string]bool {
	if now.Sub(s.begun) >= strangerTime {
		s.begun, s.asked = now, 0
	}
	last := map[string]time.Time{}
	for _, uuid := range uuids {
		last[uuid] = s.last[uuid]
	}
	s.last = last // of those that are gone nothing is kept
	turn := slices.SortedStableFunc(slices.Values(slices.Sorted(maps.Keys(last))), func(a, b string) int { return last[a].Compare(last[b]) })
	chosen := map[string]bool{}
	for _, uuid := range turn[:min(len(turn), mostStrangers-s.asked)] {
		chosen[uuid], last[uuid] = true, now
	}
	s.asked += len(chosen)
	return chosen
}
