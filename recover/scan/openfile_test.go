package scan

import (
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
		held("/srv/there", 12, 1), pinOf("/i/old", "/i/old (deleted)", 13, 0),
	}, fakeTree{}, nil)
	if len(i.Files) != 2 {
		t.Fatalf("%+v", i.Files)
	}
	if f := i.Files[1]; f.Path != "/srv/extra.qcow2" || f.Role != recover.RoleOther || f.State != recover.FileDeleted || len(f.Holders) == 0 {
		t.Errorf("%+v", f)
	}
}
