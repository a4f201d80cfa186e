package keeper

// ReleaseReason says why a guard let a deleted file go.
type ReleaseReason string

// The reasons.
const (
	ReleasedProven   ReleaseReason = "proven"   // its content is back at its path, proven
	ReleasedDeleted  ReleaseReason = "deleted"  // the instance was deleted: Nova says so, or the order of events
	ReleasedMoved    ReleaseReason = "moved"    // Nova has the instance on another host
	ReleasedUnneeded ReleaseReason = "unneeded" // the instance no longer has such a file
	ReleasedGrace    ReleaseReason = "grace"    // nobody could say, and the grace was over
	ReleasedSpace    ReleaseReason = "space"    // the same, and free space fell under the floor
	ReleasedByHand   ReleaseReason = "by-hand"  // an operator said so
)

// ReleaseReasons returns every reason.
func ReleaseReasons() []ReleaseReason {
	return []ReleaseReason{ReleasedProven, ReleasedDeleted, ReleasedMoved, ReleasedUnneeded, ReleasedGrace, ReleasedSpace, ReleasedByHand}
}
