package recover

import "maps"

// unchanged is true when the guest has provably written nothing between two
// snapshots.
func (s Snapshot) unchanged(later Snapshot) bool {
	return s.Process == later.Process && maps.EqualFunc(s.Counters, later.Counters, func(a, b BlockCounters) bool {
		return a.WriteRequests == b.WriteRequests && a.WriteBytes == b.WriteBytes
	})
}
