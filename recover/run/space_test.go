package run_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestATargetThatFillsUpInMidCopyLeavesTheGuestAsItWasFound(t *testing.T) {
	h := runtest.SmallHost(t, "1m")
	g := h.Add(1, recovertest.GuestOptions{Agent: true})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	h.HV.Before = func(method, _ string) {
		if method == "suspend" {
			recovertest.Fill(t, filepath.Dir(h.Settings.InstancesPath))
		}
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, recover.ErrNoSpace.Error()) {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	if left := h.Staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOwnersAndModesOfThePublishedTree(t *testing.T) {
	h := runtest.NewHost(t)
	rule := func(id int, mode os.FileMode) recover.OwnerRule {
		return recover.OwnerRule{User: fmt.Sprint("+", id), Group: fmt.Sprint("+", id+1), Mode: mode}
	}
	dirs := rule(1100, 0o755)
	h.Settings.Owners = recover.OwnerTable{InstancesDir: dirs, BaseDir: dirs, InstanceDir: dirs, LocksDir: dirs, Base: rule(1200, 0o644),
		Disk:        rule(1300, 0o644),
		ConfigDrive: rule(1400, 0o644), ConsoleLog: rule(1500, 0o660), DiskInfo: rule(1600, 0o644)}
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true, Config: true})
	recovertest.Must(t, os.RemoveAll(h.Settings.InstancesPath))
	o := recovertest.Options(g)
	o.NoReboot = true
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	for path, want := range map[string]string{h.Settings.InstancesPath: "1100:1101 755", filepath.Dir(g.Base): "1100:1101 755",
		g.Dir: "1100:1101 755", g.Base: "1200:1201 644",
		g.Disk: "1300:1301 644", g.Dir + "/disk.config": "1400:1401 644", g.Console: "1500:1501 660", g.Dir + "/disk.info": "1600:1601 644"} {
		var st unix.Stat_t
		recovertest.Must(t, unix.Stat(path, &st))
		if got := fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
