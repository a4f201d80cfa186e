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
func held(link string, number, links uint64) heldFile {
	return heldFile{PID: 10, Process: "qemu", descriptor: descriptor{FD: 3, Link: link, Flags: unix.O_RDWR,
		Stat: unix.Stat_t{Dev: 1, Ino: number, Nlink: links, Size: 100, Blocks: 8, Mode: unix.S_IFREG}}}
}

func pin(path, link string, number, links uint64) heldFile {
	h := held(link, number, links)
	h.PID, h.Process, h.PinPath, h.Flags = 20, "os-rescue", path, unix.O_RDONLY
	return h
}

func onDevice(h heldFile, device uint64) heldFile {
	h.Stat.Dev = device
	return h
}

func TestWhereAFileStands(t *testing.T) {
	for name, c := range map[string]struct {
		path   string // classDisk if empty
		role   Role
		held   []heldFile
		tree   fakeTree
		home   fakeTree // tree if nil
		others []string
		state  FileState
		inode  uint64
		says   string
	}{
		"present and held": {held: []heldFile{held(classDisk, 7, 1)}, tree: fakeTree{classDisk: {1, 7}}, state: FilePresent, inode: 7},
		"present and held by nobody, as of a domain that is off": {tree: fakeTree{classDisk: {1, 7}}, state: FilePresent, inode: 7},
		"gone and held by nobody":                                {tree: fakeTree{}, state: FileMissing},
		"deleted":                                                {held: []heldFile{held(classDisk+" (deleted)", 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 7},
		"deleted by another client, the link without a suffix":   {held: []heldFile{held(classDisk, 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 7},
		"deleted, held twice":                                    {held: []heldFile{held(classDisk+" (deleted)", 7, 0), held(classDisk+" (deleted)", 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 7},
		"deleted, and another file stands there":                 {held: []heldFile{held(classDisk+" (deleted)", 7, 0)}, tree: fakeTree{classDisk: {1, 8}}, state: FileReplaced, inode: 7, says: "8"},
		"held only by the keeper":                                {held: []heldFile{pin(classDisk, "/elsewhere/disk (deleted)", 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 7},
		"held by QEMU and by the keeper":                         {held: []heldFile{held(classDisk+" (deleted)", 7, 0), pin(classDisk, classDisk+" (deleted)", 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 7},
		"the pin of an earlier life beside what QEMU holds now":  {held: []heldFile{held(classDisk+" (deleted)", 9, 0), pin(classDisk, classDisk+" (deleted)", 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 9},
		"the pin of another file":                                {held: []heldFile{pin("/i/u/disk.eph0", classDisk+" (deleted)", 7, 0)}, tree: fakeTree{}, state: FileMissing},
		"a name that really ends like that, present":             {path: classDisk + " (deleted)", held: []heldFile{held(classDisk+" (deleted)", 7, 1)}, tree: fakeTree{classDisk + " (deleted)": {1, 7}}, state: FilePresent, inode: 7},
		"a name that really ends like that, deleted":             {path: classDisk + " (deleted)", held: []heldFile{held(classDisk+" (deleted) (deleted)", 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 7},
		"its namesake with the suffix was deleted, not itself": {path: classDisk + " (deleted)", others: []string{classDisk}, held: []heldFile{held(classDisk+" (deleted)", 7, 0)}, tree: fakeTree{},
			state: FileMissing},
		"two deleted inodes of one path": {held: []heldFile{held(classDisk+" (deleted)", 7, 0), held(classDisk+" (deleted)", 8, 0)}, tree: fakeTree{}, state: FileDisplaced, says: "several"},
		"moved":                          {held: []heldFile{held("/i/u_resize/disk", 7, 1)}, tree: fakeTree{"/i/u_resize/disk": {1, 7}}, state: FileDisplaced, inode: 7, says: "moved to /i/u_resize/disk"},
		"moved, and another file stands there": {held: []heldFile{held("/i/u_resize/disk", 7, 1)}, tree: fakeTree{"/i/u_resize/disk": {1, 7}, classDisk: {1, 8}}, state: FileDisplaced, inode: 7,
			says: "moved"},
		"unmounted lazily":                              {held: []heldFile{held("/u/disk", 7, 1)}, tree: fakeTree{}, state: FileDisplaced, inode: 7, says: "unmounted"},
		"mounted over":                                  {held: []heldFile{held(classDisk, 7, 1)}, tree: fakeTree{"/i": {5, 2}}, state: FileDisplaced, inode: 7, says: "not mounted"},
		"mounted over by a like one":                    {held: []heldFile{held(classDisk, 7, 1)}, tree: fakeTree{classDisk: {5, 7}}, state: FileDisplaced, inode: 7, says: "hides it"},
		"another hard link":                             {held: []heldFile{held(classDisk+" (deleted)", 7, 1)}, tree: fakeTree{}, state: FileDisplaced, inode: 7, says: "hard link"},
		"deleted on a device that is not mounted there": {held: []heldFile{onDevice(held(classDisk+" (deleted)", 7, 0), 5)}, tree: fakeTree{}, state: FileDisplaced, inode: 7, says: "not mounted"},
		"deleted in another mount namespace, on the same device": {held: []heldFile{held(classDisk+" (deleted)", 7, 0)}, tree: fakeTree{"/i": {1, 40}}, home: fakeTree{"/i": {1, 41}}, state: FileDisplaced, inode: 7,
			says: "namespace"},
		"deleted, QEMU in a namespace with the same tree": {held: []heldFile{held(classDisk+" (deleted)", 7, 0)}, tree: fakeTree{"/i": {1, 40}}, home: fakeTree{"/i": {1, 40}}, state: FileDeleted, inode: 7},
		"deleted on NFS, alone":                           {held: []heldFile{held(classDir+"/.nfs0001", 7, 1)}, tree: fakeTree{classDir: {1, 2}}, state: FileDeleted, inode: 7},
		"deleted on FUSE, alone":                          {held: []heldFile{held(classDir+"/.fuse_hidden0001", 7, 1)}, tree: fakeTree{classDir: {1, 2}}, state: FileDeleted, inode: 7},
		"deleted on NFS, two in one directory": {others: []string{classDisk, "/i/u/disk.config"}, held: []heldFile{held(classDir+"/.nfs0001", 7, 1), held(classDir+"/.nfs0002", 8, 1)},
			tree: fakeTree{classDir: {1, 2}}, state: FileDisplaced, says: "NFS"},
		"deleted on NFS, its neighbour is held by nobody": {others: []string{classDisk, "/i/u/disk.config"}, held: []heldFile{held(classDir+"/.nfs0001", 7, 1)},
			tree: fakeTree{classDir: {1, 2}}, state: FileDisplaced, says: "NFS"},
		"deleted on NFS, in another directory": {held: []heldFile{held("/i/v/.nfs0001", 7, 1)}, tree: fakeTree{}, state: FileMissing},
		"a shared backing file, deleted": {path: "/i/_base/b", role: RoleBacking, others: []string{classDisk, "/i/_base/b"},
			held: []heldFile{held(classDisk+" (deleted)", 7, 0), held("/i/_base/b (deleted)", 9, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 9},
		"a volume outside the instances directory, deleted": {path: "/mnt/h/volume-1", held: []heldFile{held("/mnt/h/volume-1 (deleted)", 7, 0)}, tree: fakeTree{}, state: FileDeleted, inode: 7},
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
	must(t, classify(&f, []heldFile{logd}, fakeTree{"/i/v/console.log": {1, 7}}, fakeTree{}, nil))
	if f.State != FileMissing {
		t.Errorf("%s: %s", f.State, f.Reason)
	}
}

func TestAConsoleLogHeldByVirtlogdIsFound(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{console: true})
	h.purge()
	for _, f := range g.scan().Files {
		if f.Role != RoleConsoleLog {
			continue
		}
		if f.State != FileDeleted || len(f.Holders) != 1 || f.Holders[0].Process != "virtlogd" || f.Writable {
			t.Errorf("%+v", f)
		}
	}
}

func TestTheVerdictSumsUpWhatStandsWhere(t *testing.T) {
	disk := Disk{Target: "vda", Device: "disk", Chain: []Image{{Source: SourceFile, Path: classDisk, Format: "raw"}}}
	running := Domain{State: StateRunning, PID: 10, Disks: []Disk{disk}}
	with := func(change func(*Domain)) Domain {
		d := running
		change(&d)
		return d
	}
	file := func(role Role, state FileState) File { return File{Path: classDisk, Role: role, State: state} }
	for name, c := range map[string]struct {
		domain   Domain
		files    []File
		verdict  Verdict
		says     string
		possible bool
	}{
		"all present":                         {running, []File{file(RoleDisk, FilePresent), file(RoleDiskInfo, FilePresent)}, VerdictIntact, "", false},
		"a disk deleted":                      {running, []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "", false},
		"disk.info alone is gone":             {running, []File{file(RoleDisk, FilePresent), file(RoleDiskInfo, FileMissing)}, VerdictRecoverable, "", false},
		"a console log nobody has is no loss": {running, []File{file(RoleDisk, FilePresent), file(RoleConsoleLog, FileMissing)}, VerdictIntact, "", false},
		"what no definition names":            {running, []File{file(RoleDisk, FilePresent), file(RoleOther, FileDeleted)}, VerdictIntact, "", false},
		"one displaced among the deleted":     {running, []File{file(RoleDisk, FileDeleted), file(RoleBacking, FileDisplaced)}, VerdictDisplaced, "displaced", true},
		"something new at a path":             {running, []File{file(RoleDisk, FileReplaced)}, VerdictConflict, "was deleted", true},
		"put back with the same content":      {running, []File{file(RoleDisk, FilePresent), {Role: RoleBacking, State: FileReplaced, Proven: true}}, VerdictIntact, "", false},
		"one missing among the deleted":       {running, []File{file(RoleDisk, FileDeleted), file(RoleBacking, FileMissing)}, VerdictLost, "nobody holds it", false},
		"off, and everything is gone": {with(func(d *Domain) { d.State, d.PID = StateShutOff, 0 }), []File{file(RoleDisk, FileMissing), file(RoleDiskInfo, FileMissing)},
			VerdictLost, "nobody holds it", false},
		"only a block device": {with(func(d *Domain) {
			d.Disks = []Disk{{Target: "vda", Chain: []Image{{Source: SourceBlock, Path: "/dev/sdb"}}}}
		}), nil, VerdictUnaffected, "", false},
		"a job under way":         {with(func(d *Domain) { d.Job = "save" }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "job", false},
		"a job and nothing lost":  {with(func(d *Domain) { d.Job = "save" }), []File{file(RoleDisk, FilePresent)}, VerdictIntact, "", false},
		"paused for an I/O error": {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseIOError }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "I/O error", false},
		"paused by its own owner": {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseUser }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "", false},
		"migrating":               {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseMigration }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "migrated", false},
		"a block job":             {with(func(d *Domain) { d.BlockJobs = map[string]string{"vda": "copy"} }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "vda copy", false},
		"between two states":      {with(func(d *Domain) { d.State = StateOther }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "between two states", false},
		"crashed, and kept":       {with(func(d *Domain) { d.State = StateCrashed }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "crashed", false},
		"an external data store": {with(func(d *Domain) {
			d.Disks = []Disk{{Target: "vda", Chain: disk.Chain, Unusual: []string{"external data store"}}}
		}), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "external data store", false},
		"paused for another cause": {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseOther }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "not by a user", false},
	} {
		t.Run(name, func(t *testing.T) {
			i := Instance{domain: c.domain, Files: c.files}
			judge(&i)
			reasons := strings.Join(i.Reasons, "; ")
			if i.Verdict != c.verdict || !strings.Contains(reasons, c.says) || c.says == "" && reasons != "" || c.possible != (len(i.Possible) > 0) {
				t.Errorf("%s (%s) %v; want %s, %q", i.Verdict, reasons, i.Possible, c.verdict, c.says)
			}
		})
	}
}

func TestWhatIsStillPossibleForAnInstanceThatIsLost(t *testing.T) {
	all := []Instance{
		{UUID: "a", Domain: "alive", Files: []File{{Path: "/i/_base/b", Role: RoleBacking, State: FileDeleted, Holders: []Holder{{PID: 1}}}}},
		{UUID: "b", Domain: "dead", Verdict: VerdictLost, Files: []File{
			{Path: "/i/_base/b", Role: RoleBacking, State: FileMissing}, {Path: "/i/_base/c", Role: RoleBacking, State: FileMissing},
			{Path: "/i/b/disk", Role: RoleDisk, State: FileMissing}, {Path: "/i/b/disk.config", Role: RoleConfigDrive, State: FileMissing},
			{Path: "/i/b/disk.info", Role: RoleDiskInfo, State: FileMissing}}},
	}
	explainLost(all)
	got := all[1].Possible
	if len(got) != 4 || !strings.Contains(got[0], "held by alive") || !strings.Contains(got[1], "Glance") ||
		!strings.Contains(got[2], "restore --from") || !strings.Contains(got[3], "config") {
		t.Errorf("%q", got)
	}
	if len(all[0].Possible) > 0 {
		t.Errorf("the living one: %q", all[0].Possible)
	}
}

func TestWhatNoDefinitionNamesIsReportedOnceAndMemoryIsNot(t *testing.T) {
	named := []File{{Path: classDisk, Device: 1, Inode: 7}}
	got := unnamed(named, []heldFile{
		held(classDisk+" (deleted)", 7, 0), held("/srv/extra.qcow2 (deleted)", 8, 0), held("/srv/extra.qcow2 (deleted)", 8, 0),
		held("/memfd:pc.ram (deleted)", 9, 0), held("/dev/hugepages/x (deleted)", 10, 0), held("/var/tmp/vl.Ab12 (deleted)", 11, 0),
		held("/srv/there", 12, 1), pin("/i/old", "/i/old (deleted)", 13, 0),
	})
	if len(got) != 1 || got[0].Path != "/srv/extra.qcow2" || got[0].Role != RoleOther || got[0].State != FileDeleted || len(got[0].Holders) == 0 {
		t.Errorf("%+v", got)
	}
}
