package e2e

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

func allocated(t *testing.T, path string) (size, bytes int64) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Size, st.Blocks * 512
}

func TestASparseDiskIsCopiedInTimeAndSpaceOfItsData(t *testing.T) {
	const uuid = "d1dc1d6a-0000-4000-8000-000000000016"
	const dataAt, data = 2 << 30, 64 << 20
	l := lab.New(t, withFailpoints)
	disk := filepath.Join(lab.InstancesDir, uuid, "disk.eph0")
	v := &victim{l: l, boots: 1, Instance: l.Define(t, lab.Spec{UUID: uuid, NoAgent: true, DevicesXML: diskXML(disk, "vdx")})}
	write(t, disk, "")
	must(t, os.Truncate(disk, 4<<30))
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	body := make([]byte, data)
	_, _ = rand.Read(body) // never fails
	_, err = f.WriteAt(body, dataAt)
	must(t, err)
	must(t, f.Close())
	v.Start(t)
	v.WaitBoot(t, 1)
	_, before := allocated(t, disk)
	l.DeleteTree(t)

	got := of(t, rescue(t, l, 0, "--all"), v)
	v.isBack(t, 1)
	if v.Boots()[1].Disks["vdb"] != "ok" {
		t.Errorf("what the guest wrote to it is %v", v.Boots()[1].Disks)
	}
	size, after := allocated(t, disk)
	if size != 4<<30 || after > before+4<<20 {
		t.Errorf("the copy has %d bytes of %d, the source had %d of %d", after, size, before, int64(4<<30))
	}
	if read := got.Bytes; read > 256<<20 {
		t.Errorf("%d bytes were copied for %d of data", read, data)
	}
	f, err = os.Open(disk)
	must(t, err)
	defer f.Close()
	copied := make([]byte, data)
	_, err = f.ReadAt(copied, dataAt)
	must(t, err)
	if string(copied) != string(body) {
		t.Error("the data is not what it was")
	}
}

func TestWhereTheFileSystemClonesARunNeedsNoRoom(t *testing.T) {
	l := lab.New(t, lab.Options{FileSystem: lab.XFS, Size: 2 << 30, BuildFlags: withFailpoints.BuildFlags})
	v := boot(t, l, lab.Spec{NoAgent: true})
	v.WaitLine(t, v.Send(t, "fill 32"), "fill payload")
	l.DeleteTree(t)
	filler := fill(t, lab.NovaDir, 16<<20) // far less than the files have
	r := runEnv(t, l, []string{"OS_RESCUE_HEADROOM_PERCENT=0"}, 0, rescueArgs("--all")...)
	remove(t, filler)
	v.isBack(t, 1)
	v.intact(t)
	made := copies(t, report(t, r).Run, v)
	for _, path := range []string{v.Disk, v.Base} {
		if made[path].Method != copier.MethodClone {
			t.Errorf("%s was copied like this: %+v", path, made[path])
		}
	}
}

// On such a file system a buffered read returns the image as it was made.
func TestWhereBufferedReadsLieTheCopyIsTrue(t *testing.T) {
	l := lab.New(t, withFailpoints)
	server, err := lyingfs.Mount(lab.InstancesDir, t.TempDir(), lyingfs.Options{})
	must(t, err)
	t.Cleanup(func() { _ = unix.Unmount(lab.InstancesDir, unix.MNT_DETACH) })
	v := boot(t, l, lab.Spec{NoAgent: true})
	v.WaitBeat(t, 2)
	lies(t, v)
	l.DeleteTree(t)

	t.Run("other hosts may write it: only who knows goes on", func(t *testing.T) {
		got := of(t, rescue(t, l, 1, "--all"), v)
		if got.Outcome != recover.OutcomeSkipped || len(got.Steps) > 0 {
			t.Errorf("%s", asJSON(t, got))
		}
		says(t, got.Error, "other hosts", "--accept-shared")
		v.unharmed(t)
	})
	t.Run("O_DIRECT is refused: the run stops", func(t *testing.T) {
		server.RefuseDirect(true)
		defer server.RefuseDirect(false)
		got := of(t, rescue(t, l, 1, "--all", "--accept-shared"), v)
		if got.Outcome == recover.OutcomeRescued {
			t.Errorf("%s", asJSON(t, got))
		}
		says(t, got.Error, "O_DIRECT")
		v.unharmed(t)
		v.nothingStaged(t)
	})
	t.Run("the copy is true", func(t *testing.T) {
		said := v.LastBeat()
		rescue(t, l, 0, "--all", "--accept-shared")
		v.isBack(t, 1)
		v.intact(t)
		if again := v.Boots()[1]; again.LastBeat < said || again.Gaps != 0 {
			t.Errorf("beat %d was said before the suspend; on the disk are %d with %d gaps", said, again.LastBeat, again.Gaps)
		}
	})
}

// lies makes sure that the file system does what the test is about.
func lies(t *testing.T, v *victim) {
	t.Helper()
	buffered := digest(t, v.Disk)
	v.WaitBeat(t, v.LastBeat()+2)
	if digest(t, v.Disk) != buffered {
		t.Fatal("a buffered read shows what the guest writes: the file system does not lie")
	}
}

func TestWhatAGuestWritesWhileItsDiskIsCopiedIsInTheCopy(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true})
	v.WaitLine(t, v.Send(t, "fill 24"), "fill payload")
	v.WaitLine(t, v.Send(t, "write"), "write=") // and it goes on writing
	l.DeleteTree(t)
	var said int
	r := at(t, l, "ahead.done", func() {
		v.WaitLine(t, v.Send(t, "fill 16"), "fill payload")
		v.WaitBeat(t, v.LastBeat()+2)
		said = v.LastBeat()
	}, rescueArgs("--all")...)
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	v.isBack(t, 1)
	v.intact(t)
	if again := v.Boots()[1]; again.Writer != "ok" || again.LastBeat < said || again.Gaps != 0 {
		t.Errorf("beat %d was said before the suspend; on the disk are %d with %d gaps, and the writer's slots are %q",
			said, again.LastBeat, again.Gaps, again.Writer)
	}
	// The payload; and the writer's slots and the journal, however often they were written.
	const payload, slots, log = 16 << 20, 4 << 20, 4 << 20
	got := copies(t, report(t, r).Run, v)[v.Disk]
	if got.Method != copier.MethodAhead || got.Bytes < payload || got.Bytes > payload+slots+log+2<<20 {
		t.Errorf("what was copied under the suspend is not what was written meanwhile: %+v", got)
	}
}
