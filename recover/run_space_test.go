package recover

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestATargetThatFillsUpInMidCopyLeavesTheGuestAsItWasFound(t *testing.T) {
	h := smallHost(t, "1m")
	g := h.add(1, guestOptions{agent: true})
	pid := h.hv.get(g.uuid).PID
	h.purge()
	h.hv.before = func(method, _ string) {
		if method == "suspend" {
			fill(t, filepath.Dir(h.settings.InstancesPath))
		}
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, ErrNoSpace.Error()) {
		t.Errorf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
	if left := h.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOwnersAndModesOfThePublishedTree(t *testing.T) {
	h := newHost(t)
	rule := func(id int, mode os.FileMode) OwnerRule {
		return OwnerRule{User: fmt.Sprint("+", id), Group: fmt.Sprint("+", id+1), Mode: mode}
	}
	dirs := rule(1100, 0o755)
	h.settings.Owners = OwnerTable{InstancesDir: dirs, BaseDir: dirs, InstanceDir: dirs, LocksDir: dirs, Base: rule(1200, 0o644),
		Disk:        rule(1300, 0o644),
		ConfigDrive: rule(1400, 0o644), ConsoleLog: rule(1500, 0o660), DiskInfo: rule(1600, 0o644)}
	g := h.add(1, guestOptions{base: "b", console: true, config: true})
	must(t, os.RemoveAll(h.settings.InstancesPath))
	o := options(g)
	o.NoReboot = true
	report, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	for path, want := range map[string]string{h.settings.InstancesPath: "1100:1101 755", filepath.Dir(g.base): "1100:1101 755",
		g.dir: "1100:1101 755", g.base: "1200:1201 644",
		g.disk: "1300:1301 644", g.dir + "/disk.config": "1400:1401 644", g.console: "1500:1501 660", g.dir + "/disk.info": "1600:1601 644"} {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if got := fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
