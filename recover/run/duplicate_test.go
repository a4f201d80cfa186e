package run_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// remoteHost is a host whose instances are on a file system that does not open a file anew
// that another of its clients has deleted.
func remoteHost(t *testing.T) (*runtest.Host, *lyingfs.Server) {
	t.Helper()
	h := runtest.NewHost(t)
	dir := filepath.Dir(h.Settings.InstancesPath)
	server, err := lyingfs.Mount(dir, t.TempDir(), lyingfs.Options{KeepClosed: true})
	recovertest.Must(t, err)
	t.Cleanup(func() {
		h.HV.EndAll()
		h.KillKeeper()
		recovertest.Must(t, server.Unmount())
	})
	recovertest.Must(t, os.Mkdir(h.Settings.InstancesPath, 0o755))
	return h, server
}

func TestWhatItsFileSystemDoesNotOpenAnewIsRescuedThroughQEMUsOwnDescriptor(t *testing.T) {
	for name, command := range map[string]recover.Command{"rescue": recover.CommandRescue, "backup": recover.CommandBackup} {
		t.Run(name, func(t *testing.T) {
			h, _ := remoteHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Config: true})
			h.Purge()
			o := recovertest.Options(g)
			o.AcceptShared = true
			if command == recover.CommandBackup {
				o.BackupDir = filepath.Join(t.TempDir(), "backup")
			}
			report, err := h.Run(t.Context(), command, o)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			if command == recover.CommandBackup {
				return
			}
			if err := g.Serving(recover.StateRunning); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADuplicateOfQEMUsDescriptorOutlivesQEMU(t *testing.T) {
	h, _ := remoteHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	o := recovertest.Options(g)
	o.AcceptShared = true
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
	report, err := s.Execute(t.Context())
	s.Close()
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	for _, path := range []string{g.Disk, g.Base} {
		if got, err := os.ReadFile(path); err != nil || string(got) != string(g.Content[path]) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestWhatEvenQEMUCantReadAnyMoreIsLost(t *testing.T) {
	h, server := remoteHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	os.Remove(g.Disk)
	server.Forget()
	i := h.Scan(g)
	text := strings.Join(i.Reasons, "; ")
	if i.Verdict != recover.VerdictLost || !strings.Contains(text, "ESTALE") || !strings.Contains(text, "NFSv4.2") {
		t.Errorf("%s: %s", i.Verdict, text)
	}
	o := recovertest.Options(g)
	o.AcceptShared = true
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "ESTALE") {
		t.Errorf("%+v", r)
	}
	if h.HV.Called("suspend", g.UUID) > 0 {
		t.Error("it was paused")
	}
}
