package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestReservedRoomIsThereWhenTheFileSystemFillsUp(t *testing.T) {
	dir := t.TempDir()
	recovertest.Must(t, unix.Mount("none", dir, "tmpfs", 0, "size=1m,mode=700"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	j, _, err := journal.Open(dir, nil)
	recovertest.Must(t, err)
	if err := j.Reserve(2 << 20); !errors.Is(err, recover.ErrNoSpace) {
		t.Fatalf("more than there is: %v", err)
	}
	recovertest.Must(t, j.Reserve(256<<10))
	full := make([]byte, 4<<10)
	f, err := os.Create(filepath.Join(dir, "somebody's"))
	recovertest.Must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(full)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 1000)
	for n := range 100 {
		if err := j.Write(journal.Record{Step: journal.StepCopy, Phase: recover.PhaseBegin, Path: big}, nil); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
	}
	for err = nil; err == nil; {
		err = j.Write(journal.Record{Step: journal.StepCopy, Phase: recover.PhaseBegin, Path: big}, nil)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	recovertest.Must(t, j.Close())
	records, err := journal.Read(dir)
	if err != nil || len(records) < 100 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

func TestWhatWasReservedAndNotUsedIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	j, _, err := journal.Open(dir, nil)
	recovertest.Must(t, err)
	recovertest.Must(t, j.Reserve(0)) // of a run that touches nothing
	recovertest.Must(t, j.Reserve(1<<20))
	recovertest.Must(t, j.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseBegin}, nil))
	allocated := func() int64 {
		var st unix.Stat_t
		recovertest.Must(t, unix.Stat(filepath.Join(dir, journal.FileName), &st))
		return st.Blocks * 512
	}
	if n := allocated(); n < 1<<20 {
		t.Errorf("%d bytes are reserved", n)
	}
	recovertest.Must(t, j.Close())
	if n := allocated(); n > 64<<10 {
		t.Errorf("%d bytes are left", n)
	}
	if records, err := journal.Read(dir); err != nil || len(records) != 1 {
		t.Errorf("%v %v", records, err)
	}
}
