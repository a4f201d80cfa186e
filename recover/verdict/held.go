package verdict

// Owner says how one of the instances stands that a deleted file is held for.
type Owner string

// How an owner stands.
const (
	Unclaimed Owner = "unclaimed" // no instance is known to have had the file
	Unsure    Owner = "unsure"    // a run works on the instance, or it can't be judged
	Doubtful  Owner = "doubtful"  // files of it are gone that nobody has: this may be one of them
	Missing   Owner = "missing"   // it has lost this very file
	Running   Owner = "running"   // its QEMU has other files open
	Off       Owner = "off"       // libvirt knows it, and its files are others
	Gone      Owner = "gone"      // libvirt does not know it
)

// Word is what Nova says of an owner.
type Word string

// What Nova may say.
const (
	Silent   Word = "silent"   // it can't be asked, or does not know, or a task is under way
	Unasked  Word = "unasked"  // the guard works without Nova
	Here     Word = "here"     // the instance exists on this host
	Deleted  Word = "deleted"  // the instance was deleted
	OnOthers Word = "on other" // the instance is on another host, or on none
)

// HeldFacts are what was found out about a deleted file that a guard holds, for one of the
// instances that it is held for.
type HeldFacts struct {
	Written   bool  // a process, its QEMU, has it open for writing
	Open      bool  // its instance's QEMU has it open: to hold it costs no room
	Settled   bool  // it had been deleted for a while when its owner was looked at
	Proven    bool  // a proven copy of it stands at its path
	Replaced  bool  // it is a log or a run's own copy, and another has taken its place
	Wanted    bool  // an instance that existed had lost it, or is missing files now
	Owner     Owner // how the instance stands
	Nova      Word  // what Nova says of the instance
	Orderly   bool  // the order of events shows that the instance was deleted first
	Elsewhere bool  // another instance that exists misses files
	GraceOver bool  // the time is over for which a file is held that nobody can say anything of
}

// HeldResult says whether a deleted file is needed.
type HeldResult string

// The results. Needed, Undecided and Spare files are held.
const (
	Needed    HeldResult = "needed"    // an instance needs it
	Undecided HeldResult = "undecided" // it may be needed
	// Spare is not needed as far as the order of events tells. It is held while others miss
	// files, and goes first when room is short.
	Spare     HeldResult = "spare"
	Restored  HeldResult = "restored"  // its content is back
	Disowned  HeldResult = "disowned"  // its instance was deleted
	Moved     HeldResult = "moved"     // its instance is elsewhere
	Unneeded  HeldResult = "unneeded"  // its instance has other files
	Forgotten HeldResult = "forgotten" // nobody could say, for all of the grace
)

// IsHeld is true for a file that is not let go while there is room.
func (r HeldResult) IsHeld() bool { return r == Needed || r == Undecided || r == Spare }

// Held says what the facts about a deleted file mean for one of its owners. The room that is
// left is no fact: it makes no file unneeded.
func Held(f HeldFacts) HeldResult {
	switch {
	case f.Written:
		return Needed
	case !f.Settled || f.Owner == Unsure:
		return Undecided
	case f.Proven:
		return Restored
	case f.Owner == Missing:
		return Needed
	case f.Owner == Gone:
		return heldForGone(f)
	case f.Wanted && !f.Replaced:
		return Needed
	case f.Owner == Doubtful, f.Open:
		return Undecided
	case f.Owner == Running:
		return Unneeded
	case f.Owner == Unclaimed:
		if f.Elsewhere {
			return Undecided // it may be one of those
		}
		return Unneeded
	case f.Nova == Here: // it is off
		return Unneeded
	case f.Nova == Unasked && f.GraceOver:
		return Forgotten
	}
	return Undecided
}

// heldForGone is Held for an instance that libvirt does not know.
func heldForGone(f HeldFacts) HeldResult {
	switch f.Nova {
	case Deleted:
		return Disowned
	case OnOthers:
		return Moved
	case Here:
		return Needed
	case Unasked:
		switch {
		case f.Wanted:
			return Needed
		case f.GraceOver:
			return Forgotten
		case f.Orderly && f.Elsewhere:
			return Spare
		case f.Orderly:
			return Disowned
		}
	}
	return Undecided
}
