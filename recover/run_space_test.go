package recover

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/qcow2"
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

func TestAFileReadWithODirectIsPlannedAndReadSo(t *testing.T) {
	// On a file system with O_DIRECT, which the memory of the other tests may not have.
	path := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(path, payload(1, 64<<10), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	must(t, err)
	defer f.Close()
	must(t, os.Remove(path))
	mine, err := heldBy(t.Context(), os.Getpid())
	must(t, err)
	for _, h := range mine {
		if h.FD != int(f.Fd()) {
			continue
		}
		file := File{Path: path, State: FileDeleted}
		file.hold(h)
		src, err := openHeld(file)
		must(t, err)
		defer src.File.Close()
		flags, err := unix.FcntlInt(src.File.Fd(), unix.F_GETFL, 0)
		must(t, err)
		if !src.Direct || flags&unix.O_DIRECT == 0 || !file.Holders[0].Direct || !file.Writable {
			t.Errorf("%+v %#o", file.Holders, flags)
		}
		buf := make([]byte, 10)
		if _, err := (qcow2.Aligned{File: src.File}).ReadAt(buf, 4093); err != nil || string(buf) != string(payload(1, 64<<10)[4093:4103]) {
			t.Errorf("an odd read: %v", err)
		}
		file.Inode++
		if wrong, err := openHeld(file); err == nil {
			wrong.File.Close()
			t.Error("another inode was opened in its place")
		}
		return
	}
	t.Fatal("its own descriptor was not found")
}
