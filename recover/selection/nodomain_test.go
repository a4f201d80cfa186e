package selection_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// overlay makes the guest's disk a qcow2 image with that backing file, by its name in the
// header.
func overlay(t *testing.T, g *recovertest.Guest, backing string) {
	t.Helper()
	recovertest.CreateQcow2(t, "-u", "-b", backing, "-F", "raw", g.Disk, "1M")
}

// A hard reboot that fails for whatever reason leaves an instance in ERROR and undefined:
// what stands in its directory says whether anything is lost.
func TestAnInstanceWithoutADomainIsJudgedByWhatStandsInItsDirectory(t *testing.T) {
	write := func(t *testing.T, path, text string) {
		t.Helper()
		recovertest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		recovertest.Must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	for name, c := range map[string]struct {
		change  func(t *testing.T, h *runtest.Host, g *recovertest.Guest)
		verdict recover.Verdict
		says    string
	}{
		"all is there": {func(*testing.T, *runtest.Host, *recovertest.Guest) {}, recover.VerdictIntact, ""},
		"an overlay whose base is there": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			overlay(t, g, g.Base)
			write(t, g.Dir+"/disk.info", fmt.Sprintf(`{%q: "qcow2"}`, g.Disk))
		}, recover.VerdictIntact, ""},
		"an overlay with a relative name of its base": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			overlay(t, g, "../_base/b")
			write(t, g.Dir+"/disk.info", "{}")
		}, recover.VerdictIntact, ""},
		"its base is gone": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			overlay(t, g, g.Base)
			write(t, g.Dir+"/disk.info", "{}")
			recovertest.Must(t, os.Remove(g.Base))
		}, recover.VerdictLost, "_base/b is gone"},
		"a raw disk in which the guest wrote a header": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			overlay(t, g, "/etc/shadow")
			write(t, g.Dir+"/disk.info", fmt.Sprintf(`{%q: "raw"}`, g.Disk))
		}, recover.VerdictIntact, ""},
		"a base outside the image cache": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			overlay(t, g, "/etc/passwd")
			write(t, g.Dir+"/disk.info", "{}")
		}, recover.VerdictUnknown, "outside Nova's image cache"},
		"no qcow2 where Nova has noted one": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			write(t, g.Dir+"/disk.info", fmt.Sprintf(`{%q: "qcow2"}`, g.Disk))
		}, recover.VerdictUnknown, "should be a qcow2"},
		"an empty disk": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) { write(t, g.Disk, "") },
			recover.VerdictLost, "is no disk (an empty file)"},
		"a directory in its place": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			recovertest.Must(t, os.Remove(g.Disk))
			recovertest.Must(t, os.Mkdir(g.Disk, 0o755))
		}, recover.VerdictLost, "is no disk (a directory)"},
		"a symlink in its place": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			recovertest.Must(t, os.Rename(g.Disk, g.Disk+".bak"))
			recovertest.Must(t, os.Symlink("disk.bak", g.Disk))
		}, recover.VerdictUnknown, "is no disk"},
		"another disk that Nova has noted is gone": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			write(t, g.Dir+"/disk.info", fmt.Sprintf(`{%q: "raw", %q: "raw"}`, g.Disk, g.Disk+".eph0"))
		}, recover.VerdictUnknown, "disk.eph0"},
		"a damaged disk.info": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
			write(t, g.Dir+"/disk.info", "{")
		}, recover.VerdictUnknown, "disk.info"},
		"its disk is gone": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) { recovertest.Must(t, os.Remove(g.Disk)) },
			recover.VerdictLost, "disk is gone"},
		"its directory is gone": {func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) { g.Rm() }, recover.VerdictLost, "disk is gone"},
		"booted from a volume, and no file was ever there": {func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
			g.Rm()
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.FromVolume = true })
		}, recover.VerdictUnaffected, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			h.Online()
			g.Forgotten()
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMError) })
			c.change(t, h, g)
			plan, err := runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{All: true}})
			recovertest.Must(t, err)
			todo := runtest.PlanOf(t, plan, g.UUID)
			if todo.Verdict != c.verdict || !strings.Contains(todo.Refusal, c.says) {
				t.Errorf("%s: %s", todo.Verdict, todo.Refusal)
			}
			whole := c.verdict == recover.VerdictIntact || c.verdict == recover.VerdictUnaffected
			said := strings.Join(plan.Warnings, "\n")
			if next := "os-rescue reboot --instance " + g.UUID + " --state ERROR"; whole != strings.Contains(said, next) {
				t.Errorf("warnings: %q", said)
			}
			if c.verdict != recover.VerdictLost && strings.Contains(said+todo.Refusal, "restore it from a backup") {
				t.Errorf("its owner is sent to a backup: %s %s", said, todo.Refusal)
			}
			reboot, err := h.Engine().DryRun(t.Context(), recover.CommandReboot,
				recover.Options{Selection: recover.Selection{All: true}, Reboot: recover.RebootOptions{States: []string{"ERROR"}}})
			recovertest.Must(t, err)
			if action := runtest.PlanOf(t, reboot, g.UUID).Action; (action == recover.ActionHardReboot) != whole {
				t.Errorf("a reboot: %s", action)
			}
		})
	}
}
