package guard_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestAGuardNoticesADeletionAtOnceWhateverLibvirtDoes(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{Base: "b1", Console: true})
	hang := make(chan struct{})
	var hanging atomic.Bool
	h.HV.Before = func(string, string) {
		if hanging.Load() {
			<-hang
		}
	}
	defer close(hang)
	g := startGuard(h, guard.Options{Interval: time.Hour}, nil, nil)
	g.awaitScan()
	hanging.Store(true)
	deleted := time.Now()
	h.Purge()
	s := g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 && len(s.Incidents[0].Paths) >= 3 })
	if took := time.Since(deleted); took > patience.Of(10*time.Second) {
		t.Errorf("it took %s", took)
	}
	if i := s.Incidents[0]; i.UUID != v.UUID || i.Found != recover.StateRunning || i.Bytes == 0 {
		t.Errorf("it says %+v", i)
	}
	if got := s.Report.Instances[0].Verdict; got != recover.VerdictRecoverable {
		t.Errorf("its report says %s", got)
	}
	if n := strings.Count(g.log.String(), "files of an instance were deleted"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, g.log)
	}
}

// A live rescue compares by a scratch image beside the disk, which it removes.
func TestAFileOfARunIsNoLossOfTheInstance(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	recovertest.Must(t, os.Remove(v.Disk))
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	scratch, other := filepath.Join(v.Dir, ".os-rescue-run-vda"), filepath.Join(v.Dir, "disk.eph0")
	recovertest.Must(t, os.WriteFile(scratch, []byte("x"), 0o600))
	recovertest.Must(t, os.WriteFile(other, []byte("x"), 0o600))
	g.await("another new file is held", func(guard.Status) bool { _, held := g.paths()[other]; return held })
	if _, held := g.paths()[scratch]; held {
		t.Error("the run's file is held")
	}
	recovertest.Must(t, os.Remove(scratch))
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if ran.Instances[0].Outcome != recover.OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	g.await("the end of the incident", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}

// A live rescue's mirror has its disk's name while QEMU opens it. A run that is given up
// removes the mirror under a name of its own.
func TestAMirrorThatIsGivenUpIsNoLossOfTheInstance(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	recovertest.Must(t, os.Remove(v.Disk))
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	held := g.Status().Held.Files

	stage := filepath.Join(filepath.Dir(v.Dir), recover.StagePrefix+"run")
	recovertest.Must(t, os.Mkdir(stage, 0o700))
	mirror := filepath.Join(stage, "mirror")
	recovertest.Must(t, os.WriteFile(mirror, []byte("half of a disk"), 0o600))
	recovertest.Must(t, os.Rename(mirror, v.Disk))
	g.await("the mirror is held", func(s guard.Status) bool { return s.Held.Files > held })
	recovertest.Must(t, os.Rename(v.Disk, mirror))
	g.await("it is known by the run's name", func(guard.Status) bool { _, held := g.paths()[mirror]; return held })
	recovertest.Must(t, os.RemoveAll(stage))
	g.await("the mirror is let go, the disk is not", func(s guard.Status) bool {
		return s.Held.Files == held && s.Held.DeletedFiles == 1 && len(s.Incidents) == 1
	})

	v.Destroyed()
	scan := h.Scan(v)
	if scan.Verdict != recover.VerdictRecoverable {
		t.Errorf("%s: %v", scan.Verdict, scan.Reasons)
	}
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if ran.Instances[0].Outcome != recover.OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	g.await("the end of the incident", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}
