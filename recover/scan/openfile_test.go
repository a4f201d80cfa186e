package scan

import (
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestAConsoleLogOfAnotherInstanceIsNotThisOnes(t *testing.T) {
	l := lookOf(t, fakeTree{"/i/v/console.log": {Device: 1, Inode: 7}})
	logd := held("/i/v/console.log", 7, 1)
	logd.Process = "virtlogd"
	l.logs.held = []procfs.HeldFile{logd.HeldFile}
	i := recover.Instance{Process: recover.ProcessIdentity{PID: 10}}
	i.Files = []recover.File{{Path: "/i/u/console.log", Role: recover.RoleConsoleLog}}
	recovertest.Must(t, l.files(t.Context(), &i, nil, fakeTree{"/i/v/console.log": {Device: 1, Inode: 7}}))
	if f := i.Files[0]; f.State != recover.FileMissing {
		t.Errorf("%s: %s", f.State, f.Reason)
	}
}

func TestWhatNoDefinitionNamesIsReportedOnceAndMemoryIsNot(t *testing.T) {
	i := judged(t, false, []recover.File{{Path: classDisk, Role: recover.RoleDisk, Writable: true}}, []candidate{
		held(classDisk+" (deleted)", 7, 0), held("/srv/extra.qcow2 (deleted)", 8, 0), held("/srv/extra.qcow2 (deleted)", 8, 0),
		held("/memfd:pc.ram (deleted)", 9, 0), held("/dev/hugepages/x (deleted)", 10, 0), held("/var/tmp/vl.Ab12 (deleted)", 11, 0),
		held("/mnt/huge/libvirt/qemu/qemu_back_mem.pc.ram.x1 (deleted)", 14, 0),
		readOnly(held("/usr/share/OVMF/OVMF_CODE_4M.fd (deleted)", 15, 0)), writeOnly(held("/var/log/serial.log (deleted)", 16, 0)),
		held("/srv/there", 12, 1), pinOf("/i/old", "/i/old (deleted)", 13, 0),
	}, fakeTree{}, nil)
	if len(i.Files) != 2 {
		t.Fatalf("%+v", i.Files)
	}
	if f := i.Files[1]; f.Path != "/srv/extra.qcow2" || f.Role != recover.RoleOther || f.State != recover.FileDeleted || len(f.Holders) == 0 {
		t.Errorf("%+v", f)
	}
}

func TestAMappingDecidesBetweenOpenFilesAndNothingElse(t *testing.T) {
	files := []recover.File{
		{Path: classDisk, Role: recover.RoleDisk, Writable: true}, {Path: "/i/u/disk.eph0", Role: recover.RoleDisk, Writable: true},
	}
	a, b := held("/srv/x (deleted)", 7, 0), held("/srv/y (deleted)", 8, 0)
	a.FD, b.FD = 3, 4
	unwritable := readOnly(held("/srv/z (deleted)", 9, 0))
	unwritable.FD = 5
	for name, c := range map[string]struct {
		mapping recover.Mapping
		inode   uint64 // of the first disk; 0 if the scan says why not
	}{
		"one, which leaves the other for the second disk": {recover.Mapping{Path: classDisk, PID: 10, FD: 4}, 8},
		"of another process":                              {recover.Mapping{Path: classDisk, PID: 11, FD: 4}, 0},
		"a descriptor that is no file":                    {recover.Mapping{Path: classDisk, PID: 10, FD: 99}, 0},
		"a file that is none of its":                      {recover.Mapping{Path: "/i/u/other", PID: 10, FD: 4}, 0},
		"a file that it can't write":                      {recover.Mapping{Path: classDisk, PID: 10, FD: 5}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := lookOf(t, fakeTree{})
			l.mapped = []recover.Mapping{c.mapping}
			i := recover.Instance{Process: recover.ProcessIdentity{PID: 10}, Files: slices.Clone(files)}
			err := l.files(t.Context(), &i, []candidate{a, b, unwritable}, fakeTree{})
			if got := i.Files[0].Inode; err == nil && got != c.inode || err != nil && (c.inode != 0 || !strings.Contains(err.Error(), "--map")) {
				t.Errorf("inode %d, %v", got, err)
			}
			if c.inode != 0 && i.Files[1].Inode != 7 {
				t.Errorf("the second disk is inode %d", i.Files[1].Inode)
			}
		})
	}
}

func TestAnImageOfAPackageIsKnownByItsPlace(t *testing.T) {
	const iso = "/usr/share/virtio-win/virtio-win.iso"
	i := judged(t, false, []recover.File{{Path: classDisk, Role: recover.RoleDisk, Writable: true}, {Path: iso, Role: recover.RoleDisk}},
		[]candidate{held(classDisk, 7, 1), readOnly(held(iso, 8, 1)), readOnly(held("/usr/share/OVMF/OVMF_CODE_4M.fd", 9, 1))},
		fakeTree{classDisk: {Device: 1, Inode: 7}, iso: {Device: 1, Inode: 8}}, nil)
	if i.Verdict != recover.VerdictIntact {
		t.Errorf("%s %q", i.Verdict, i.Reasons)
	}
}

func TestTwoDisksMayShareAFileUnderTwoNames(t *testing.T) {
	i := judged(t, false, []recover.File{
		{Path: classDisk, Role: recover.RoleDisk, Writable: true},
		{Path: "/iso/a", Role: recover.RoleDisk},
		{Path: "/iso/b", Role: recover.RoleDisk},
	}, []candidate{held(classDisk, 7, 1), readOnly(held("/iso/a", 8, 2)), readOnly(held("/iso/b", 8, 2))},
		fakeTree{classDisk: {Device: 1, Inode: 7}, "/iso/a": {Device: 1, Inode: 8}, "/iso/b": {Device: 1, Inode: 8}}, nil)
	if i.Verdict != recover.VerdictIntact {
		t.Errorf("%s %q", i.Verdict, i.Reasons)
	}
}

// QEMU keeps the descriptor that it wrote through when an external snapshot makes its file a layer.
func TestALayerThatWasWrittenBeforeASnapshotIsFoundThoughItWasRenamed(t *testing.T) {
	i := judged(t, false, []recover.File{
		{Path: classDisk, Role: recover.RoleBacking},
		{Path: "/i/u/disk.snap", Role: recover.RoleDisk, Writable: true},
	}, []candidate{held("/i/u/disk.snap", 8, 1), held("/i/u/disk.bak", 7, 1)},
		fakeTree{"/i/u/disk.bak": {Device: 1, Inode: 7}, "/i/u/disk.snap": {Device: 1, Inode: 8}}, nil)
	if f := i.Files[0]; f.State != recover.FileDisplaced || f.Remedy != recover.RemedyMoveBack || f.Writable {
		t.Errorf("%s, %s, writable %v: %s", f.State, f.Remedy, f.Writable, f.Reason)
	}
}
