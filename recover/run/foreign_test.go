package run_test

import (
	"os"
	"path/filepath"
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
