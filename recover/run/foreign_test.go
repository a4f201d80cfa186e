package run_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// opened makes a file, opens it and removes it.
func opened(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	recovertest.Must(t, os.WriteFile(path, []byte("data"), 0o600))
	f, err := os.OpenFile(path, flags, 0)
	recovertest.Must(t, err)
	t.Cleanup(func() { f.Close() })
	recovertest.Must(t, os.Remove(path))
	return f
}

// libvirt has lost the QEMU, has its domain as off, and somebody has copied an old disk to its path.
func TestAnInstanceOfWhichALostQEMUWritesTheDeletedDiskIsNotStartedOnAnother(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
		t.Fatalf("before, it is %s", v)
	}
	disk := g.Opened(t) // by this process, of which libvirt knows nothing
	recovertest.Must(t, os.Remove(g.Disk))
	recovertest.Must(t, os.WriteFile(g.Disk, g.Content[g.Disk], 0o600))
	i := h.Scan(g)
	if said := strings.Join(slices.Concat(i.Reasons, i.Possible), "\n"); i.Verdict != recover.VerdictUnknown ||
		!strings.Contains(said, "libvirt does not know") || !strings.Contains(said, "--holder") {
		t.Errorf("it is %s: %s", i.Verdict, said)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || h.HV.Get(g.UUID).PID != 0 {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, disk.Close())
	if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
		t.Errorf("when that is over, it is %s", v)
	}
}

// TestADeletedFileThatAProcessWritesWhichLibvirtDoesNotKnowIsNamed: a QEMU that libvirt has
// lost is in no list of domains.
func TestADeletedFileThatAProcessWritesWhichLibvirtDoesNotKnowIsNamed(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	dir := filepath.Join(h.Settings.InstancesPath, recovertest.UUID(9))
	recovertest.Must(t, os.Mkdir(dir, 0o755))
	opened(t, filepath.Join(dir, "disk.config"), os.O_RDONLY) // some program that reads
	opened(t, filepath.Join(dir, "console.log"), os.O_RDWR)
	opened(t, filepath.Join(t.TempDir(), "disk"), os.O_RDWR) // of no instance
	h.Purge()
	report, err := h.ScanAll(t.Context())
	recovertest.Must(t, err)
	if len(report.Foreign) != 0 {
		t.Fatalf("what libvirt knows, and what nobody writes, is named: %+v", report.Foreign)
	}
	recovertest.Must(t, os.MkdirAll(dir, 0o755))
	disk := opened(t, filepath.Join(dir, "disk"), os.O_RDWR)
	if report, err = h.ScanAll(t.Context()); err != nil || len(report.Foreign) != 1 {
		t.Fatalf("%+v, %v", report.Foreign, err)
	}
	f := report.Foreign[0]
	at, err := os.Stat(f.Descriptor())
	recovertest.Must(t, err)
	want, err := disk.Stat()
	recovertest.Must(t, err)
	if f.Path != filepath.Join(dir, "disk") || f.UUID != recovertest.UUID(9) || f.PID != os.Getpid() || !os.SameFile(at, want) {
		t.Errorf("%+v", f)
	}
	if v := h.Scan(g).Verdict; v != recover.VerdictRecoverable {
		t.Errorf("the guest that libvirt knows is %s", v)
	}
	recovertest.Must(t, disk.Close())
	if report, err = h.ScanAll(t.Context()); err != nil || len(report.Foreign) != 0 {
		t.Errorf("it is open nowhere any more: %+v, %v", report.Foreign, err)
	}
}
