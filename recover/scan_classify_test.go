package recover

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeTree is a tree of files by path; directories are found by themselves, as
// inode 1 of device 1 unless they are named.
type fakeTree map[string]inode

func (t fakeTree) Stat(path string) (unix.Stat_t, error) {
	at, ok := t[path]
	if !ok {
		return unix.Stat_t{}, fs.ErrNotExist
	}
	return unix.Stat_t{Dev: at.Device, Ino: at.Inode, Mode: unix.S_IFREG, Nlink: 1, Size: 100}, nil
}

func (t fakeTree) Ancestor(path string) (string, unix.Stat_t, error) {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if at, ok := t[dir]; ok {
			return dir, unix.Stat_t{Dev: at.Device, Ino: at.Inode, Mode: unix.S_IFDIR}, nil
		}
	}
	return "/", unix.Stat_t{Dev: 1, Ino: 1, Mode: unix.S_IFDIR}, nil
}

const (
	classDir  = "/i/u"
	classDisk = "/i/u/disk"
)

// held is a descriptor of the domain's QEMU.
func held(link string, number, links uint64) scanCandidate {
	return scanCandidate{heldFile: heldFile{PID: 10, Process: "qemu", descriptor: descriptor{FD: 3, Link: link, Flags: unix.O_RDWR,
		Stat: unix.Stat_t{Dev: 1, Ino: number, Nlink: links, Size: 100, Blocks: 8, Mode: unix.S_IFREG}}}}
}

func pinOf(path, link string, number, links uint64) scanCandidate {
	h := held(link, number, links)
	h.PID, h.Process, h.pinPath, h.Flags = 20, "os-rescue", path, unix.O_RDONLY
	return h
}

func onDevice(h scanCandidate, device uint64) scanCandidate {
	h.Stat.Dev = device
	return h
}

func TestWhereAFileStands(t *testing.T) {
	for name, c := range map[string]struct {
		path   string // classDisk if empty
		role   Role
		held   []scanCandidate
		tree   fakeTree
		home   fakeTree // tree if nil
		others []string
		state  FileState
		inode  uint64
		says   string
	}{
		"present and held": {held: []scanCandidate{held(classDisk, 7, 1)}, tree: fakeTree{classDisk: {1, 7}}, state: FilePresent, inode: 7},
		"present and held by nobody, as of a domain that is off": {tree: fakeTree{classDisk: {1, 7}}, state: FilePresent, inode: 7},
		"gone and held by nobody":                                {tree: fakeTree{}, state: FileMissing},
		"deleted": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 7,
		},
		"deleted by another client, the link without a suffix": {
			held:  []scanCandidate{held(classDisk, 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 7,
		},
		"deleted, held twice": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 0), held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 7,
		},
		"deleted, and another file stands there": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{classDisk: {1, 8}},
			state: FileReplaced,
			inode: 7,
			says:  "8",
		},
		"held only by the keeper": {
			held:  []scanCandidate{pinOf(classDisk, "/elsewhere/disk (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 7,
		},
		"held by QEMU and by the keeper": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 0), pinOf(classDisk, classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 7,
		},
		"the pin of an earlier life beside what QEMU holds now": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 9, 0), pinOf(classDisk, classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 9,
		},
		"the pin of another file": {
			held:  []scanCandidate{pinOf("/i/u/disk.eph0", classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileMissing,
		},
		"a name that really ends like that, present": {
			path:  classDisk + " (deleted)",
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 1)},
			tree:  fakeTree{classDisk + " (deleted)": {1, 7}},
			state: FilePresent,
			inode: 7,
		},
		"a name that really ends like that, deleted": {
			path:  classDisk + " (deleted)",
			held:  []scanCandidate{held(classDisk+" (deleted) (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 7,
		},
		"its namesake with the suffix was deleted, not itself": {
			path:   classDisk + " (deleted)",
			others: []string{classDisk},
			held:   []scanCandidate{held(classDisk+" (deleted)", 7, 0)},
			tree:   fakeTree{},
			state:  FileMissing,
		},
		"two deleted inodes of one path": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 0), held(classDisk+" (deleted)", 8, 0)},
			tree:  fakeTree{},
			state: FileDisplaced,
			says:  "several",
		},
		"moved": {
			held:  []scanCandidate{held("/i/u_resize/disk", 7, 1)},
			tree:  fakeTree{"/i/u_resize/disk": {1, 7}},
			state: FileDisplaced,
			inode: 7,
			says:  "moved to /i/u_resize/disk",
		},
		"moved, and another file stands there": {
			held:  []scanCandidate{held("/i/u_resize/disk", 7, 1)},
			tree:  fakeTree{"/i/u_resize/disk": {1, 7}, classDisk: {1, 8}},
			state: FileDisplaced,
			inode: 7,
			says:  "moved",
		},
		"unmounted lazily": {
			held:  []scanCandidate{held("/u/disk", 7, 1)},
			tree:  fakeTree{},
			state: FileDisplaced,
			inode: 7,
			says:  "unmounted",
		},
		"mounted over": {
			held:  []scanCandidate{held(classDisk, 7, 1)},
			tree:  fakeTree{"/i": {5, 2}},
			state: FileDisplaced,
			inode: 7,
			says:  "not mounted",
		},
		"mounted over by a like one": {
			held:  []scanCandidate{held(classDisk, 7, 1)},
			tree:  fakeTree{classDisk: {5, 7}},
			state: FileDisplaced,
			inode: 7,
			says:  "hides it",
		},
		"another hard link": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 1)},
			tree:  fakeTree{},
			state: FileDisplaced,
			inode: 7,
			says:  "hard link",
		},
		"deleted on a device that is not mounted there": {
			held:  []scanCandidate{onDevice(held(classDisk+" (deleted)", 7, 0), 5)},
			tree:  fakeTree{},
			state: FileDisplaced,
			inode: 7,
			says:  "not mounted",
		},
		"deleted in another mount namespace, on the same device": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{"/i": {1, 40}},
			home:  fakeTree{"/i": {1, 41}},
			state: FileDisplaced,
			inode: 7,
			says:  "namespace",
		},
		"deleted, QEMU in a namespace with the same tree": {
			held:  []scanCandidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{"/i": {1, 40}},
			home:  fakeTree{"/i": {1, 40}},
			state: FileDeleted,
			inode: 7,
		},
		"deleted on NFS, alone": {
			held:  []scanCandidate{held(classDir+"/.nfs0001", 7, 1)},
			tree:  fakeTree{classDir: {1, 2}},
			state: FileDeleted,
			inode: 7,
		},
		"deleted on FUSE, alone": {
			held:  []scanCandidate{held(classDir+"/.fuse_hidden0001", 7, 1)},
			tree:  fakeTree{classDir: {1, 2}},
			state: FileDeleted,
			inode: 7,
		},
		"deleted on NFS, two in one directory": {
			others: []string{classDisk, "/i/u/disk.config"},
			held:   []scanCandidate{held(classDir+"/.nfs0001", 7, 1), held(classDir+"/.nfs0002", 8, 1)},
			tree:   fakeTree{classDir: {1, 2}},
			state:  FileDisplaced,
			says:   "NFS",
		},
		"deleted on NFS, its neighbour is held by nobody": {
			others: []string{classDisk, "/i/u/disk.config"},
			held:   []scanCandidate{held(classDir+"/.nfs0001", 7, 1)},
			tree:   fakeTree{classDir: {1, 2}},
			state:  FileDisplaced,
			says:   "NFS",
		},
		"deleted on NFS, in another directory": {held: []scanCandidate{held("/i/v/.nfs0001", 7, 1)}, tree: fakeTree{}, state: FileMissing},
		"a shared backing file, deleted": {
			path:   "/i/_base/b",
			role:   RoleBacking,
			others: []string{classDisk, "/i/_base/b"},
			held:   []scanCandidate{held(classDisk+" (deleted)", 7, 0), held("/i/_base/b (deleted)", 9, 0)},
			tree:   fakeTree{},
			state:  FileDeleted,
			inode:  9,
		},
		"a volume outside the instances directory, deleted": {
			path:  "/mnt/h/volume-1",
			held:  []scanCandidate{held("/mnt/h/volume-1 (deleted)", 7, 0)},
			tree:  fakeTree{},
			state: FileDeleted,
			inode: 7,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := File{Path: c.path, Role: c.role, Holders: []Holder{}}
			if f.Path == "" {
				f.Path = classDisk
			}
			if f.Role == "" {
				f.Role = RoleDisk
			}
			others := map[string]bool{f.Path: true}
			for _, o := range c.others {
				others[o] = true
			}
			home := c.home
			if home == nil {
				home = c.tree
			}
			must(t, classify(&f, c.held, c.tree, home, others))
			if f.State != c.state || c.inode != 0 && f.Inode != c.inode || !strings.Contains(f.Reason, c.says) {
				t.Errorf("%s, inode %d (%s); want %s, inode %d, %q", f.State, f.Inode, f.Reason, c.state, c.inode, c.says)
			}
			if f.State == FileMissing && len(f.Holders) > 0 {
				t.Errorf("missing, and held: %+v", f.Holders)
			}
			if f.Role == RoleBacking && f.Writable {
				t.Error("a backing file is taken for writable")
			}
		})
	}
}

func TestAConsoleLogOfAnotherInstanceIsNotThisOnes(t *testing.T) {
	logd := held("/i/v/console.log", 7, 1)
	logd.Process = "virtlogd"
	f := File{Path: "/i/u/console.log", Role: RoleConsoleLog}
	must(t, classify(&f, []scanCandidate{logd}, fakeTree{"/i/v/console.log": {1, 7}}, fakeTree{}, nil))
	if f.State != FileMissing {
		t.Errorf("%s: %s", f.State, f.Reason)
	}
}

func TestWhatNoDefinitionNamesIsReportedOnceAndMemoryIsNot(t *testing.T) {
	named := []File{{Path: classDisk, Device: 1, Inode: 7}}
	got := unnamed(named, []scanCandidate{
		held(classDisk+" (deleted)", 7, 0), held("/srv/extra.qcow2 (deleted)", 8, 0), held("/srv/extra.qcow2 (deleted)", 8, 0),
		held("/memfd:pc.ram (deleted)", 9, 0), held("/dev/hugepages/x (deleted)", 10, 0), held("/var/tmp/vl.Ab12 (deleted)", 11, 0),
		held("/srv/there", 12, 1), pinOf("/i/old", "/i/old (deleted)", 13, 0),
	})
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	if f := got[0]; f.Path != "/srv/extra.qcow2" || f.Role != RoleOther || f.State != FileDeleted || len(f.Holders) == 0 {
		t.Errorf("%+v", f)
	}
}
