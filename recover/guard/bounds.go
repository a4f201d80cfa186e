package guard

import "golang.org/x/sys/unix"

// How many names the guard looks at in the instances directory at each scan. Nova's user can
// make them, and go on while they are read. A file that libvirt names is looked for by its name.
const (
	mostInTop    = 64 << 10  // names of the instances directory itself
	mostInDir    = 4 << 10   // names of an instance's directory
	mostInBase   = 16 << 10  // names of _base
	mostDirs     = 8 << 10   // directories, of all instances
	mostNames    = 256 << 10 // names of all directories together
	mostSubdirs  = 64        // directories, of one instance
	mostStrayOwn = 16        // owners of a file, by where its names are and not by a definition: hard links
	// Files on the shelf that nobody names: systemd compares a new one with each (systemd.StoreFD).
	// Idle cached images take no place from an instance's new disk.
	mostShelvedBases  = 256
	mostShelvedStrays = 256
)

// bounds are how many files the guard holds. What libvirt names has descriptors of its own, which
// no file in the instances directory can take from it.
type bounds struct {
	named   int // files that isNamed
	ofOwner int // other files in one instance's directory
	strays  int // other files in the directories of all instances
	bases   int // other files in _base
}

// total is how many files are held at most.
func (b bounds) total() int { return b.named + b.strays + b.bases }

// boundsOf returns the bounds of a process that may have so many descriptors. The rest is for
// its own work: the files of /proc and of its state, sockets, clients.
func boundsOf(descriptors uint64) bounds {
	const own = 1024
	n := int(min(descriptors, 1<<20))
	n = max(n-own, n/2)
	b := bounds{strays: min(8<<10, n/4), bases: min(8<<10, n/8)}
	b.ofOwner = min(256, b.strays/4)
	b.named = min(32<<10, n-b.strays-b.bases)
	return b
}

// boundsNow returns the bounds of this process.
func boundsNow() bounds {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 1024 // the default of most systems
	}
	return boundsOf(limit.Cur)
}

// isNamed is true for a file that a definition names, that a process of its instance had open, or
// that an instance has lost. What is only in an instance's directory stays one that nobody names
// when it is deleted with the rest: else any number of them could be held, some after the others.
func (m holdMemory) isNamed() bool {
	return m.Belongs != "" || m.Opened || m.Needed && isEssential(m.Role)
}

// tally counts the files that are held and that nobody names, against the bounds.
type tally struct {
	bounds
	all     int
	byOwner map[string]int
	inDirs  int // of instances
	inBase  int
	beyond  int    // files that were not admitted
	example string // the path of one
	over    string // a directory with more than its own bound; empty when there is none
}

func newTally(b bounds) *tally { return &tally{bounds: b, byOwner: map[string]int{}} }

// add counts a file that is held.
func (t *tally) add(m holdMemory) {
	t.all++
	switch {
	case m.isNamed():
	case len(m.Owners) == 0:
		t.inBase++
	default:
		t.inDirs++
		for _, o := range m.Owners {
			t.byOwner[o]++
		}
	}
}

// admits says whether one more file may be held that nobody names, in a directory of the owner's.
// One that may not is counted.
func (t *tally) admits(path, owner string) bool {
	within := t.inBase < t.bases
	if owner != "" {
		within = t.byOwner[owner] < t.ofOwner
	}
	if within && (owner == "" || t.inDirs < t.strays) && t.all < t.total() {
		return true
	}
	t.skip(path, !within)
	return false
}

// skip counts a file that is not held, or a directory of which not all is looked at; isOver is true
// when one directory has more than its own bound. A big host may have more of all together, or
// have many instances of other hosts in a shared tree: that is no problem of its.
func (t *tally) skip(path string, isOver bool) {
	if t.beyond == 0 {
		t.example = path
	}
	if isOver && t.over == "" {
		t.over = path
	}
	t.beyond++
}

// shelved counts the files on the shelf that nobody names.
type shelved struct{ bases, strays int }

// kind is the count that a file is in.
func (s *shelved) kind(h *guardHold) *int {
	if len(h.Owners) == 0 {
		return &s.bases
	}
	return &s.strays
}

func (s *shelved) hasRoom(h *guardHold) bool {
	most := mostShelvedStrays
	if len(h.Owners) == 0 {
		most = mostShelvedBases
	}
	return *s.kind(h) < most
}
