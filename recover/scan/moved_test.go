package scan_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// cure runs the commands between backticks in the reasons of an instance's displaced files.
func cure(t *testing.T, i recover.Instance) {
	t.Helper()
	for _, f := range i.Files {
		if f.State != recover.FileDisplaced {
			continue
		}
		parts := strings.Split(f.Reason, "`")
		if len(parts) < 3 {
			t.Fatalf("no command for %s: %q", f.Path, f.Reason)
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", parts[1]).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", parts[1], err, out)
		}
	}
}

func TestWhatAScanSaysOfAMovedTreeCanBeRunAsItStands(t *testing.T) {
	for what, move := range map[string]func(h *runtest.Host, g *recovertest.Guest) error{
		"the tree, and an empty one in its place": func(h *runtest.Host, _ *recovertest.Guest) error {
			path := h.Settings.InstancesPath
			if err := os.Rename(path, path+".old"); err != nil {
				return err
			}
			return os.Mkdir(path, 0o755)
		},
		"the instance's directory": func(_ *runtest.Host, g *recovertest.Guest) error { return os.Rename(g.Dir, g.Dir+".bak") },
	} {
		t.Run(what, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b1", Console: true})
			recovertest.Must(t, move(h, g))
			i := h.Scan(g)
			for _, f := range i.Files {
				if f.Role == recover.RoleConsoleLog && f.State != recover.FileDisplaced {
					t.Errorf("the console log that virtlogd has open is %s", f.State)
				}
			}
			cure(t, i)
			if i = h.Scan(g); i.Verdict != recover.VerdictRecoverable { // disk.info is made anew
				t.Errorf("after the cure it is %s: %q", i.Verdict, i.Reasons)
			}
			for _, f := range i.Files {
				if f.Role != recover.RoleDiskInfo && f.State != recover.FilePresent {
					t.Errorf("%s is %s", f.Path, f.State)
				}
			}
		})
	}
}

func TestASymlinkThatLeadsNowhereIsNamedWithWhatMendsIt(t *testing.T) {
	h := runtest.NewHost(t)
	bases, link := filepath.Join(t.TempDir(), "bases"), filepath.Join(h.Settings.InstancesPath, "_base")
	recovertest.Must(t, os.Mkdir(bases, 0o755))
	recovertest.Must(t, os.RemoveAll(link))
	recovertest.Must(t, os.Symlink(bases, link))
	g := h.Add(1, recovertest.GuestOptions{Base: "b1"})
	recovertest.Must(t, os.Rename(bases, bases+"2"))
	i := h.Scan(g)
	if i.Verdict != recover.VerdictDisplaced || !strings.Contains(strings.Join(i.Reasons, ";"), "the symlink "+link) {
		t.Fatalf("%s: %q", i.Verdict, i.Reasons)
	}
	cure(t, i)
	if i = h.Scan(g); i.Verdict != recover.VerdictIntact {
		t.Errorf("after the cure it is %s: %q", i.Verdict, i.Reasons)
	}
	recovertest.Must(t, os.RemoveAll(bases+"2"))
	i = h.Scan(g)
	if said := strings.Join(i.Reasons, ";"); i.Verdict != recover.VerdictConflict || !strings.Contains(said, "the symlink "+link) {
		t.Errorf("its target deleted: %s: %q", i.Verdict, said)
	}
}
