package verdict

import "github.com/os-rescue/os-rescue/recover"

// Kind says what the loss of a file would mean.
type Kind string

// The kinds of files.
const (
	Essential Kind = "essential" // its content exists only once: a disk, a backing file, a config drive, NVRAM
	Log       Kind = "log"       // libvirt makes it anew at a start
	Made      Kind = "made"      // no process ever holds it, and it can be made from the definition: disk.info
)

// KindOf returns the kind of the files of a role.
func KindOf(role recover.Role) Kind {
	switch role {
	case recover.RoleConsoleLog:
		return Log
	case recover.RoleDiskInfo:
		return Made
	default:
		return Essential
	}
}

// Holder says who has the file's inode open.
type Holder string

// The holders. Other processes prove nothing.
const (
	Nobody    Holder = "nobody"    // neither of the following
	Own       Holder = "own"       // the domain's own QEMU; libvirt's virtlogd for a log
	Pin       Holder = "pin"       // the keeper, the guard or a process that the operator named, for a domain that is off
	Ambiguous Holder = "ambiguous" // several open files could be it
)

// Place says what stands at the file's path, compared with the held inode. If nobody holds
// the file, any regular file at the path is Stranger.
type Place string

// What may stand at a path.
const (
	Nothing  Place = "nothing"
	Itself   Place = "itself"   // the held inode
	Copy     Place = "copy"     // a proven copy of the held inode, which nobody can have written since
	Stranger Place = "stranger" // another regular file
	NoFile   Place = "no file"  // a device, a symlink that others could have made: it may lead to the file
	NoDisk   Place = "no disk"  // what is certainly none: a directory, a FIFO; of a domain that is off, an empty file
	NoImage  Place = "no image" // a regular file, the held inode or not, that can't be the image that is defined; if the domain is off
	// Overwritten is the file that the domain's QEMU has open, whose content is no image any more.
	Overwritten Place = "overwritten"
	Split       Place = "split" // the file, held or not; its image keeps the guest's data in another one, which is not known to be there
)

// Name says which name the held inode has, if it is not at its path.
type Name string

// The names.
const (
	NoName    Name = "none"      // the link count is 0, or as good as that
	Elsewhere Name = "elsewhere" // it was renamed, and its present name is known
	OtherLink Name = "link"      // its own name was deleted, but another hard link is left
	Hidden    Name = "hidden"    // it has its own name, but that leads somewhere else here: a mount, a mount namespace
)

// Facts are what was found out about one file.
type Facts struct {
	Kind   Kind
	Active bool // its domain has a QEMU
	Holder Holder
	At     Place
	Named  Name // means nothing if nobody holds the file, or it is at its path
	// Reachable is true when a file made at the path would be on the held inode's file
	// system and be seen by QEMU.
	Reachable bool
	// Instead is true when another file is there that no definition names and that may be
	// this one: the definition may have been changed, and not the file.
	Instead bool
	// Templated is true for a file that libvirt makes from a template at a start, if it is not
	// there: NVRAM (qemuPrepareNVRAM in libvirt's src/qemu/qemu_process.c).
	Templated bool
}

// Result is what the facts about a file mean.
type Result struct {
	State  recover.FileState
	Proven bool // its place is taken by a proven copy: nothing is to be done
	Remedy recover.Remedy
	Why    string // for people; empty when the state says it all
}

// row is a line of the table. An empty field of the pattern fits every fact.
type row struct {
	kind      Kind
	active    string // "yes", "no"
	holder    Holder
	at        Place
	named     Name
	reachable string // "yes", "no"
	instead   string // "yes", "no"
	templated string // "yes", "no"
	result    Result
}

// table is the judgement on one file: its first line that fits counts.
func table() []row {
	const (
		yes = "yes"
		no  = "no"
	)
	present := Result{State: recover.FilePresent}
	const notOpen = "its QEMU does not have it open, nor any file that could be it"
	unknown := func(why string) Result {
		return Result{State: recover.FileUnknown, Remedy: recover.RemedyLook, Why: why}
	}
	return []row{
		{holder: Ambiguous, result: unknown("several open files could be it")},
		{at: Itself, result: present},
		{kind: Essential, active: yes, at: Overwritten, result: Result{State: recover.FileUnknown, Remedy: recover.RemedyRestore}},
		{kind: Essential, at: Split, result: unknown("")},
		{kind: Essential, active: no, at: NoImage, result: Result{State: recover.FileUnknown, Remedy: recover.RemedyReplace}},

		// Nobody holds it.
		{kind: Made, holder: Nobody, at: Stranger, result: present},
		{kind: Made, holder: Nobody, at: Nothing, result: Result{State: recover.FileMissing, Remedy: recover.RemedyMake}},
		{kind: Log, holder: Nobody, at: Stranger, result: present},
		{kind: Log, holder: Nobody, at: Nothing, result: Result{State: recover.FileMissing}},
		{kind: Essential, active: yes, holder: Nobody, at: Stranger, result: unknown(notOpen)},
		{kind: Essential, active: no, holder: Nobody, at: Stranger, result: present},
		{kind: Essential, active: no, holder: Nobody, at: Nothing, templated: yes, result: Result{State: recover.FileMissing,
			Remedy: recover.RemedyMake, Why: "if it was moved away, move it back before a start: libvirt makes it from its template then, and " +
				"what the guest has stored there (boot entries, Secure Boot keys) is lost"}},
		{kind: Essential, holder: Nobody, at: Nothing, instead: yes, result: unknown("another file may be it")},
		{kind: Essential, holder: Nobody, at: NoDisk, instead: yes, result: unknown("another file may be it")},
		{kind: Essential, holder: Nobody, at: Nothing, result: Result{State: recover.FileMissing, Remedy: recover.RemedyRestore}},
		{kind: Essential, holder: Nobody, at: NoDisk, result: Result{State: recover.FileMissing, Remedy: recover.RemedyRestore}},
		{holder: Nobody, result: unknown("what stands at its path is no regular file")},

		// It is held, and has no name any more.
		{at: Copy, named: NoName, result: Result{State: recover.FileReplaced, Proven: true,
			Why: "put back earlier with the same content; the old inode stays open until the next start"}},
		{named: NoName, at: Nothing, reachable: yes, result: Result{State: recover.FileDeleted, Remedy: recover.RemedyCopy}},
		{named: NoName, at: Nothing, result: Result{State: recover.FileDeleted, Remedy: recover.RemedyMount}},
		{named: NoName, result: Result{State: recover.FileReplaced, Remedy: recover.RemedyReplace}},

		// It is held, and has a name, but not the right one.
		{named: OtherLink, at: Nothing, reachable: yes, result: Result{State: recover.FileDisplaced, Remedy: recover.RemedyLinkBack}},
		{named: OtherLink, at: Nothing, result: Result{State: recover.FileDisplaced, Remedy: recover.RemedyMount}},
		{named: Elsewhere, at: Nothing, reachable: yes, result: Result{State: recover.FileDisplaced, Remedy: recover.RemedyMoveBack}},
		{named: Elsewhere, at: Nothing, result: Result{State: recover.FileDisplaced, Remedy: recover.RemedyMount}},
		{named: Hidden, result: Result{State: recover.FileDisplaced, Remedy: recover.RemedyMount}},
		{result: Result{State: recover.FileDisplaced, Remedy: recover.RemedyReplace}},
	}
}

// File returns what the facts about one file mean.
func File(f Facts) Result {
	for _, r := range table() {
		if r.fits(f) {
			return r.result
		}
	}
	return Result{State: recover.FileUnknown, Remedy: recover.RemedyLook} // not reached: the last line fits all
}

func (r row) fits(f Facts) bool {
	held := f.Holder == Own || f.Holder == Pin
	return (r.kind == "" || r.kind == f.Kind) &&
		isAsked(r.active, f.Active) &&
		(r.holder == "" || r.holder == f.Holder) &&
		(r.at == "" || r.at == f.At) &&
		(r.named == "" || held && r.named == f.Named) &&
		isAsked(r.reachable, f.Reachable) &&
		isAsked(r.instead, f.Instead) &&
		isAsked(r.templated, f.Templated)
}

func isAsked(pattern string, fact bool) bool { return pattern == "" || (pattern == "yes") == fact }
