package scan

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// fakeTree is a tree of files by path; directories are found by themselves, as
// inode 1 of device 1 unless they are named.
type fakeTree map[string]recover.Inode

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
func held(link string, number, links uint64) candidate {
	return candidate{HeldFile: procfs.HeldFile{PID: 10, Process: "qemu", Descriptor: procfs.Descriptor{FD: 3, Link: link, Flags: unix.O_RDWR,
		Stat: unix.Stat_t{Dev: 1, Ino: number, Nlink: links, Size: 100, Blocks: 8, Mode: unix.S_IFREG}}}}
}

func pinOf(path, link string, number, links uint64) candidate {
	h := held(link, number, links)
	h.PID, h.Process, h.pinPath, h.Flags = 20, "os-rescue", path, unix.O_RDONLY
	return h
}

func onDevice(h candidate, device uint64) candidate {
	h.Stat.Dev = device
	return h
}

func TestWhereAFileStands(t *testing.T) {
	for name, c := range map[string]struct {
		path   string // classDisk if empty
		role   recover.Role
		held   []candidate
		tree   fakeTree
		home   fakeTree // tree if nil
		others []string
		state  recover.FileState
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
			state: recover.FileDisplaced,
			says:  "several",
		},
		"moved": {
			held:  []candidate{held("/i/u_resize/disk", 7, 1)},
			tree:  fakeTree{"/i/u_resize/disk": {Device: 1, Inode: 7}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "moved to /i/u_resize/disk",
		},
		"moved, and another file stands there": {
			held:  []candidate{held("/i/u_resize/disk", 7, 1)},
			tree:  fakeTree{"/i/u_resize/disk": {Device: 1, Inode: 7}, classDisk: {Device: 1, Inode: 8}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "moved",
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
			held:  []candidate{held(classDisk+" (deleted)", 7, 1)},
			tree:  fakeTree{},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "hard link",
		},
		"deleted on a device that is not mounted there": {
			held:  []candidate{onDevice(held(classDisk+" (deleted)", 7, 0), 5)},
			tree:  fakeTree{},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "not mounted",
		},
		"deleted in another mount namespace, on the same device": {
			held:  []candidate{held(classDisk+" (deleted)", 7, 0)},
			tree:  fakeTree{"/i": {Device: 1, Inode: 40}},
			home:  fakeTree{"/i": {Device: 1, Inode: 41}},
			state: recover.FileDisplaced,
			inode: 7,
			says:  "namespace",
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
			state:  recover.FileDisplaced,
			says:   "NFS",
		},
		"deleted on NFS, its neighbour is held by nobody": {
			others: []string{classDisk, "/i/u/disk.config"},
			held:   []candidate{held(classDir+"/.nfs0001", 7, 1)},
			tree:   fakeTree{classDir: {Device: 1, Inode: 2}},
			state:  recover.FileDisplaced,
			says:   "NFS",
		},
		"deleted on NFS, in another directory": {held: []candidate{held("/i/v/.nfs0001", 7, 1)}, tree: fakeTree{}, state: recover.FileMissing},
		"a shared backing file, deleted": {
			path:   "/i/_base/b",
			role:   recover.RoleBacking,
			others: []string{classDisk, "/i/_base/b"},
			held:   []candidate{held(classDisk+" (deleted)", 7, 0), held("/i/_base/b (deleted)", 9, 0)},
			tree:   fakeTree{},
			state:  recover.FileDeleted,
			inode:  9,
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
			f := recover.File{Path: c.path, Role: c.role, Holders: []recover.Holder{}}
			if f.Path == "" {
				f.Path = classDisk
			}
			if f.Role == "" {
				f.Role = recover.RoleDisk
			}
			others := map[string]bool{f.Path: true}
			for _, o := range c.others {
				others[o] = true
			}
			home := c.home
			if home == nil {
				home = c.tree
			}
			recovertest.Must(t, classify(&f, c.held, c.tree, home, others))
			if f.State != c.state || c.inode != 0 && f.Inode != c.inode || !strings.Contains(f.Reason, c.says) {
				t.Errorf("%s, inode %d (%s); want %s, inode %d, %q", f.State, f.Inode, f.Reason, c.state, c.inode, c.says)
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

func TestAConsoleLogOfAnotherInstanceIsNotThisOnes(t *testing.T) {
	logd := held("/i/v/console.log", 7, 1)
	logd.Process = "virtlogd"
	f := recover.File{Path: "/i/u/console.log", Role: recover.RoleConsoleLog}
	recovertest.Must(t, classify(&f, []candidate{logd}, fakeTree{"/i/v/console.log": {Device: 1, Inode: 7}}, fakeTree{}, nil))
	if f.State != recover.FileMissing {
		t.Errorf("%s: %s", f.State, f.Reason)
	}
}

func TestWhatNoDefinitionNamesIsReportedOnceAndMemoryIsNot(t *testing.T) {
	named := []recover.File{{Path: classDisk, Device: 1, Inode: 7}}
	got := unnamed(named, []candidate{
		held(classDisk+" (deleted)", 7, 0), held("/srv/extra.qcow2 (deleted)", 8, 0), held("/srv/extra.qcow2 (deleted)", 8, 0),
		held("/memfd:pc.ram (deleted)", 9, 0), held("/dev/hugepages/x (deleted)", 10, 0), held("/var/tmp/vl.Ab12 (deleted)", 11, 0),
		held("/srv/there", 12, 1), pinOf("/i/old", "/i/old (deleted)", 13, 0),
	})
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	if f := got[0]; f.Path != "/srv/extra.qcow2" || f.Role != recover.RoleOther || f.State != recover.FileDeleted || len(f.Holders) == 0 {
		t.Errorf("%+v", f)
	}
}
