package scan

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// fakeTree is a tree of files by path; directories are found by themselves, as
// inode 1 of device 1 unless they are named.
type fakeTree map[string]recover.Inode

func (t fakeTree) Stat(path string) (identity.Status, error) {
	at, ok := t[path]
	if !ok {
		return identity.Status{}, fs.ErrNotExist
	}
	st := unix.Stat_t{Dev: at.Device, Ino: at.Inode, Mode: unix.S_IFREG, Nlink: 1, Size: 100}
	return identity.Status{Stat_t: st, Birth: at.Birth}, nil
}

func (t fakeTree) IsSymlink(string) bool { return false }

func (t fakeTree) Dangling(string) (link, target string) { return "", "" }

func (t fakeTree) IsOverlay(path string) bool { return t[path+" is an overlay"] != recover.Inode{} }

// Renames is true in this tree unless something is mounted at the path.
func (t fakeTree) Renames(path, _ string) (bool, error) {
	return t[path+" is on a mount of its own"] == recover.Inode{}, nil
}

func (t fakeTree) Resolve(path string) string { return path }

func (t fakeTree) Ancestor(path string) (string, identity.Status, error) {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if at, ok := t[dir]; ok {
			return dir, identity.Status{Stat_t: unix.Stat_t{Dev: at.Device, Ino: at.Inode, Mode: unix.S_IFDIR}}, nil
		}
	}
	return "/", identity.Status{Stat_t: unix.Stat_t{Dev: 1, Ino: 1, Mode: unix.S_IFDIR}}, nil
}

const (
	classDir  = "/i/u"
	classDisk = "/i/u/disk"
)

// held is a descriptor of the domain's QEMU.
func held(link string, number, links uint64) candidate {
	return candidate{HeldFile: procfs.HeldFile{PID: 10, Process: "qemu", Descriptor: procfs.Descriptor{FD: 3, Link: link, Flags: unix.O_RDWR,
		Stat: identity.Status{Stat_t: unix.Stat_t{Dev: 1, Ino: number, Nlink: links, Size: 100, Blocks: 8, Mode: unix.S_IFREG}}}}}
}

func pinOf(path, link string, number, links uint64) candidate {
	h := held(link, number, links)
	h.PID, h.Process, h.pinPath, h.Flags = 20, "os-rescue", path, unix.O_RDONLY
	return h
}

// readOnly is a descriptor that was opened for reading only.
func readOnly(h candidate) candidate {
	h.Flags = unix.O_RDONLY
	return h
}

// writeOnly is a descriptor that was opened for writing only, as no image is.
func writeOnly(h candidate) candidate {
	h.Flags = unix.O_WRONLY
	return h
}

// needed is a pin of the guard's of a file that its instance lost.
func needed(h candidate) candidate {
	h.needed = true
	return h
}

func onDevice(h candidate, device uint64) candidate {
	h.Stat.Dev = device
	return h
}

// lookOf is a scan that sees that tree, whose files are published in home.
func lookOf(t *testing.T, home lookup) *look {
	t.Helper()
	return &look{
		settings:  recover.Settings{InstancesPath: "/i"},
		home:      home,
		logs:      &virtlogds{all: true},
		published: func() (runs.Published, error) { return runs.Published{}, nil },
		deleted:   func() ([]candidate, error) { return nil, nil },
	}
}

// judged is an instance with these files after a scan; off is true for a domain without a QEMU.
func judged(t *testing.T, off bool, files []recover.File, held []candidate, tree, home fakeTree) recover.Instance {
	t.Helper()
	if home == nil {
		home = tree
	}
	l := lookOf(t, home)
	i := recover.Instance{UUID: recovertest.UUID(1), Process: recover.ProcessIdentity{PID: 10}}
	if off {
		i.Process.PID = 0
	}
	var own []candidate
	for _, h := range held {
		switch {
		case h.pinPath != "":
			l.pins = append(l.pins, pin.Held{HeldFile: h.HeldFile, Owners: []string{i.UUID}, Meta: pin.Meta{Path: h.pinPath, Needed: h.needed}})
		case off:
			l.named = append(l.named, h)
		default:
			own = append(own, h)
		}
	}
	for _, f := range files {
		i.Definition.Disks = append(i.Definition.Disks, recover.Disk{Chain: []recover.Image{{Source: recover.SourceFile, Path: f.Path}}})
		f.Holders = []recover.Holder{}
		i.Files = append(i.Files, f)
	}
	recovertest.Must(t, l.files(t.Context(), &i, own, tree))
	verdict.Instance(&i)
	return i
}

func TestWhereAFileStands(t *testing.T) {
	for name, c := range map[string]struct {
		path   string // classDisk if empty
		role   recover.Role
		off    bool
		held   []candidate
		tree   fakeTree
		home   fakeTree // tree if nil
		others []string
		state  recover.FileState
		remedy recover.Remedy
		inode  uint64
		says   string
	}{
		"present and held": {
			held:  []candidate{held(classDisk, 7, 1)},
			tree:  fakeTree{classDisk: {Device: 1, Inode: 7}},
			state: recover.FilePresent,
			inode: 7,
		},
		"present and held by nobody, as of a domain that is off": {
			off:   true,
			tree:  fakeTree{classDisk: {Device: 1, Inode: 7}},
			state: recover.FilePresent,
			inode: 7,
		},
		"gone and held by nobody": {tree: fakeTree{}, state: recover.FileMissing},
		"deleted": {
			held:  []candidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
		"deleted by another client, the link without a suffix": {
			held:  []candidate{held(classDisk, 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
		"deleted, held twice": {
			held:  []candidate{held(classDisk+" (deleted)", 7, 0), held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
		"deleted, and another file stands there": {
			held:  []candidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{classDisk: {Device: 1, Inode: 8}},
			state: recover.FileReplaced,
			inode: 7,
			says:  "8",
		},
		"held only by the keeper": {
			off:   true,
			held:  []candidate{pinOf(classDisk, "/elsewhere/disk (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
		"held by QEMU and by the keeper": {
			held:  []candidate{held(classDisk+" (deleted)", 7, 0), pinOf(classDisk, classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
		"the pin of an earlier life beside what QEMU holds now": {
			held:  []candidate{held(classDisk+" (deleted)", 9, 0), pinOf(classDisk, classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 9,
		},
		"the pin of another file": {
			held:  []candidate{pinOf("/i/u/disk.eph0", classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileMissing,
		},
		"a name that really ends like that, present": {
			path:  classDisk + " (deleted)",
			held:  []candidate{held(classDisk+" (deleted)", 7, 1)},
			tree:  fakeTree{classDisk + " (deleted)": {Device: 1, Inode: 7}},
			state: recover.FilePresent,
			inode: 7,
		},
		"a name that really ends like that, deleted": {
			path:  classDisk + " (deleted)",
			held:  []candidate{held(classDisk+" (deleted) (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
		"its namesake with the suffix was deleted, not itself": {
			path:   classDisk + " (deleted)",
			others: []string{classDisk},
			held:   []candidate{held(classDisk+" (deleted)", 7, 0)},
			tree:   fakeTree{},
			state:  recover.FileMissing,
		},
		"two deleted inodes of one path": {
			held:  []candidate{held(classDisk+" (deleted)", 7, 0), held(classDisk+" (deleted)", 8, 0)},
			tree:  fakeTree{},
			state: recover.FileUnknown,
			says:  "--map /i/u/disk=10:3",
		},
		"moved": {
			held:  []candidate{held("/i/u_resize/disk", 7, 1)},
			tree:  fakeTree{"/i/u_resize/disk": {Device: 1, Inode: 7}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "`mkdir -p /i/u && mv -n /i/u_resize/disk /i/u/disk`",
		},
		"moved, and another file stands there": {
			held:  []candidate{held("/i/u_resize/disk", 7, 1)},
			tree:  fakeTree{"/i/u_resize/disk": {Device: 1, Inode: 7}, classDisk: {Device: 1, Inode: 8}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "another file (inode 8)",
		},
		"renamed, and a copy of it stands there": {
			held:  []candidate{held("/i/u/disk.bak", 7, 1)},
			tree:  fakeTree{"/i/u/disk.bak": {Device: 1, Inode: 7}, classDisk: {Device: 1, Inode: 8}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "`mv -n /i/u/disk /i/u/disk.aside && mv -n /i/u/disk.bak /i/u/disk`",
		},
		"unmounted lazily": {
			held:  []candidate{held("/u/disk", 7, 1)},
			tree:  fakeTree{},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "unmounted",
		},
		"mounted over": {
			held:  []candidate{held(classDisk, 7, 1)},
			tree:  fakeTree{"/i": {Device: 5, Inode: 2}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "not mounted",
		},
		"mounted over by a like one": {
			held:  []candidate{held(classDisk, 7, 1)},
			tree:  fakeTree{classDisk: {Device: 5, Inode: 7}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "hides it",
		},
		"another hard link": {
			held:   []candidate{held(classDisk+" (deleted)", 7, 1)},
			tree:   fakeTree{},
			state:  recover.FileDisplaced,
			remedy: recover.RemedyLinkBack,
			inode:  7,
			says:   "hard link",
		},
		"deleted on a device that is not mounted there": {
			held:   []candidate{onDevice(held(classDisk+" (deleted)", 7, 0), 5)},
			tree:   fakeTree{},
			state:  recover.FileDeleted,
			remedy: recover.RemedyMount,
			inode:  7,
			says:   "not mounted",
		},
		"deleted in another mount namespace, on the same device": {
			held:   []candidate{held(classDisk+" (deleted)", 7, 0)},
			tree:   fakeTree{"/i": {Device: 1, Inode: 40}},
			home:   fakeTree{"/i": {Device: 1, Inode: 41}},
			state:  recover.FileDeleted,
			remedy: recover.RemedyMount,
			inode:  7,
			says:   "namespace",
		},
		"deleted, QEMU in a namespace with the same tree": {
			held:  []candidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{"/i": {Device: 1, Inode: 40}},
			home:  fakeTree{"/i": {Device: 1, Inode: 40}},
			state: recover.FileDeleted,
			inode: 7,
		},
		"deleted on NFS, alone": {
			held:  []candidate{held(classDir+"/.nfs0001", 7, 1)},
			tree:  fakeTree{classDir: {Device: 1, Inode: 2}},
			state: recover.FileDeleted,
			inode: 7,
		},
		"deleted on FUSE, alone": {
			held:  []candidate{held(classDir+"/.fuse_hidden0001", 7, 1)},
			tree:  fakeTree{classDir: {Device: 1, Inode: 2}},
			state: recover.FileDeleted,
			inode: 7,
		},
		"deleted on NFS, two in one directory": {
			others: []string{classDisk, "/i/u/disk.config"},
			held:   []candidate{held(classDir+"/.nfs0001", 7, 1), held(classDir+"/.nfs0002", 8, 1)},
			tree:   fakeTree{classDir: {Device: 1, Inode: 2}},
			state:  recover.FileUnknown,
			says:   "nfs0002",
		},
		"deleted on NFS, its neighbour is held by nobody": {
			others: []string{classDisk, "/i/u/disk.config"},
			held:   []candidate{held(classDir+"/.nfs0001", 7, 1)},
			tree:   fakeTree{classDir: {Device: 1, Inode: 2}},
			state:  recover.FileUnknown,
			says:   "nfs0001",
		},
		"deleted on NFS, in another directory": {held: []candidate{held("/i/v/.nfs0001", 7, 1)}, tree: fakeTree{}, state: recover.FileMissing},
		"a shared backing file, deleted": {
			path:   "/i/_base/b",
			role:   recover.RoleBacking,
			others: []string{classDisk, "/i/_base/b"},
			held:   []candidate{held(classDisk+" (deleted)", 7, 0), readOnly(held("/i/_base/b (deleted)", 9, 0))},
			tree:   fakeTree{},
			state:  recover.FileDeleted,
			inode:  9,
		},
		"its name deleted on an overlay's lower layer, whose link count stays": {
			held:   []candidate{held(classDisk+" (deleted)", 7, 1)},
			tree:   fakeTree{classDir: {Device: 4, Inode: 2}, classDir + " is an overlay": {Device: 1, Inode: 1}},
			state:  recover.FileDeleted,
			remedy: recover.RemedyCopy,
			inode:  7,
		},
		"its tree moved, then deleted": {
			held:   []candidate{held("/i.old/u/disk (deleted)", 7, 0)},
			tree:   fakeTree{},
			state:  recover.FileDeleted,
			remedy: recover.RemedyCopy,
			inode:  7,
		},
		"its tree moved, then deleted, with a second disk": {
			others: []string{classDisk, "/i/u/disk.eph0"},
			held:   []candidate{held("/i.old/u/disk.eph0 (deleted)", 8, 0), held("/i.old/u/disk (deleted)", 7, 0)},
			tree:   fakeTree{},
			state:  recover.FileDeleted,
			inode:  7,
		},
		"renamed, then deleted under a name that tells nothing": {
			held:  []candidate{held("/srv/x (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
		"two disks renamed, then deleted under names that tell nothing": {
			others: []string{classDisk, "/i/u/disk.eph0"},
			held:   []candidate{held("/srv/x (deleted)", 7, 0), held("/srv/y (deleted)", 8, 0)},
			tree:   fakeTree{},
			state:  recover.FileUnknown,
			says:   "/srv/x (deleted) (--map /i/u/disk=10:3), /srv/y",
		},
		"of two disks renamed and deleted the other one is told by its name": {
			others: []string{classDisk, "/i/u/disk.eph0"},
			held:   []candidate{held("/srv/x (deleted)", 7, 0), held("/srv/disk.eph0 (deleted)", 8, 0)},
			tree:   fakeTree{},
			state:  recover.FileDeleted,
			inode:  7,
		},
		"a deleted file that QEMU can't write is not its disk": {
			held:  []candidate{readOnly(held("/srv/x (deleted)", 7, 0))},
			tree:  fakeTree{},
			state: recover.FileMissing,
		},
		"renamed within its directory": {
			held:   []candidate{held(classDisk+".bak", 7, 1)},
			tree:   fakeTree{classDisk + ".bak": {Device: 1, Inode: 7}},
			state:  recover.FileDisplaced,
			remedy: recover.RemedyMoveBack,
			inode:  7,
		},
		"deleted, and a copy made by hand stands there": {
			held:   []candidate{held(classDisk+" (deleted)", 7, 0), pinOf(classDisk, classDisk, 8, 1)},
			tree:   fakeTree{classDisk: {Device: 1, Inode: 8}},
			state:  recover.FileReplaced,
			remedy: recover.RemedyReplace,
			inode:  7,
		},
		"there, but its QEMU has nothing open that could be it": {
			tree:   fakeTree{classDisk: {Device: 1, Inode: 8}},
			state:  recover.FileUnknown,
			remedy: recover.RemedyLook,
			says:   "does not have it open",
		},
		"there, held by another process, but its QEMU has a deleted one": {
			held:  []candidate{held("/srv/x (deleted)", 7, 0), pinOf(classDisk, classDisk, 8, 1)},
			tree:  fakeTree{classDisk: {Device: 1, Inode: 8}},
			state: recover.FileReplaced,
			inode: 7,
		},
		"its name exchanged with the second disk's, as the guard saw them before": {
			others: []string{classDisk, "/i/u/disk.eph0"},
			held: []candidate{
				held(classDisk, 8, 1), held("/i/u/disk.eph0", 7, 1), pinOf(classDisk, "/i/u/disk.eph0", 7, 1), pinOf("/i/u/disk.eph0", classDisk, 8, 1),
			},
			tree:   fakeTree{classDisk: {Device: 1, Inode: 8}, "/i/u/disk.eph0": {Device: 1, Inode: 7}},
			state:  recover.FileDisplaced,
			remedy: recover.RemedyReplace,
			inode:  7,
		},
		"renamed while its domain is off, held by the guard": {
			off:    true,
			held:   []candidate{pinOf(classDisk, classDisk+".bak", 7, 1)},
			tree:   fakeTree{classDisk + ".bak": {Device: 1, Inode: 7}},
			state:  recover.FileDisplaced,
			remedy: recover.RemedyMoveBack,
			inode:  7,
		},
		"off, two deleted inodes held by the guard": {
			off:   true,
			held:  []candidate{pinOf(classDisk, classDisk+" (deleted)", 7, 0), pinOf(classDisk, classDisk+" (deleted)", 8, 0)},
			tree:  fakeTree{},
			state: recover.FileUnknown,
		},
		"off, two deleted inodes held by the guard, of which the instance lost one": {
			off:   true,
			held:  []candidate{pinOf(classDisk, classDisk+" (deleted)", 7, 0), needed(pinOf(classDisk, classDisk+" (deleted)", 8, 0))},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 8,
		},
		"off, another file made in the place of the lost one": {
			off:   true,
			held:  []candidate{needed(pinOf(classDisk, classDisk+" (deleted)", 7, 0)), pinOf(classDisk, classDisk, 8, 1)},
			tree:  fakeTree{classDisk: {Device: 1, Inode: 8}},
			state: recover.FileReplaced,
			inode: 7,
		},
		"a volume outside the instances directory, deleted": {
			path:  "/mnt/h/volume-1",
			held:  []candidate{held("/mnt/h/volume-1 (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: recover.FileDeleted,
			inode: 7,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := recover.File{Path: c.path, Role: c.role}
			if f.Path == "" {
				f.Path = classDisk
			}
			if f.Role == "" {
				f.Role, f.Writable = recover.RoleDisk, true
			}
			files := []recover.File{f}
			for _, o := range c.others {
				if o != f.Path {
					files = append(files, recover.File{Path: o, Role: recover.RoleDisk, Writable: true})
				}
			}
			f = judged(t, c.off, files, c.held, c.tree, c.home).Files[0]
			wrong := f.State != c.state || c.remedy != "" && f.Remedy != c.remedy || c.inode != 0 && f.Inode != c.inode
			if wrong || !strings.Contains(f.Reason, c.says) {
				t.Errorf("%s, %s, inode %d (%s); want %s, %s, inode %d, %q", f.State, f.Remedy, f.Inode, f.Reason, c.state, c.remedy, c.inode, c.says)
			}
			if f.State == recover.FileMissing && len(f.Holders) > 0 {
				t.Errorf("missing, and held: %+v", f.Holders)
			}
			if f.Role == recover.RoleBacking && f.Writable {
				t.Error("a backing file is taken for writable")
			}
		})
	}
}
