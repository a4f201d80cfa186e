package run_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// bind mounts a directory once more, at another path, until the test's end.
func bind(t *testing.T, from, at string) {
	t.Helper()
	recovertest.Must(t, os.MkdirAll(at, 0o755))
	recovertest.Must(t, unix.Mount(from, at, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
}

// TestWhatIsDeletedBelowAMountOfItsOwnIsPutBackThere: no name can be moved from one mount of
// a file system to another, so the copies are staged on the one where they belong.
func TestWhatIsDeletedBelowAMountOfItsOwnIsPutBackThere(t *testing.T) {
	for name, mounted := range map[string]func(g *recovertest.Guest) string{
		"its directory":           func(g *recovertest.Guest) string { return g.Dir },
		"the one of cached bases": func(g *recovertest.Guest) string { return filepath.Dir(g.Base) },
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			bind(t, mounted(g), mounted(g))
			recovertest.Must(t, os.Remove(g.Disk))
			recovertest.Must(t, os.Remove(g.Base))
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
		})
	}
}

// TestAFileThatWasMovedWithItsMountIsMountedBackAndNotMoved: mv would copy it, and its QEMU
// would go on with the old one.
func TestAFileThatWasMovedWithItsMountIsMountedBackAndNotMoved(t *testing.T) {
	h := runtest.NewHost(t)
	instances := h.Settings.InstancesPath
	bases := filepath.Join(filepath.Dir(h.Settings.StateDir), "bases")
	recovertest.Must(t, os.MkdirAll(bases, 0o755))
	bind(t, bases, filepath.Join(instances, "_base"))
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	pid := h.HV.Get(g.UUID).PID
	recovertest.Must(t, os.Remove(g.Disk))
	recovertest.Must(t, os.Rename(instances, instances+".old"))
	t.Cleanup(func() { _ = unix.Unmount(instances+".old/_base", unix.MNT_DETACH) })

	i := h.Scan(g)
	cure := "mkdir -p " + instances + "/_base && mount --bind " + instances + ".old/_base " + instances + "/_base"
	if says := strings.Join(i.Reasons, "; "); i.Verdict != recover.VerdictConflict || !strings.Contains(says, "`"+cure+"`") {
		t.Errorf("%s: %s; want %s", i.Verdict, says, cure)
	}
	todo := h.Planned(g, recover.CommandRescue, recovertest.OfflineOptions(g))
	if todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, cure) {
		t.Errorf("planned: %s: %s", todo.Action, todo.Refusal)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))

	if out, err := exec.Command("sh", "-c", cure).CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", cure, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(instances+"/_base", unix.MNT_DETACH) })
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}
