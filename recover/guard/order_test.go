package guard_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// Without Nova, the order of events tells a deletion from an accident.
func TestTheOrderOfEventsTellsADeletionFromAnAccident(t *testing.T) {
	// As Nova removes an instance's directory (nova/virt/libvirt/driver.py, delete_instance_files).
	removed := func(v *recovertest.Guest) {
		recovertest.Must(t, os.Rename(v.Dir, v.Dir+"_del"))
		recovertest.Must(t, os.RemoveAll(v.Dir+"_del"))
	}
	variables := func(v *recovertest.Guest) string {
		return filepath.Join(filepath.Dir(v.H.Settings.InstancesPath), v.UUID+"_VARS.fd")
	}
	for _, c := range []struct {
		name    string
		do      func(g *guarding, v, other *recovertest.Guest)
		orderly bool
	}{
		{"Nova removes the files, and undefines the domain", func(_ *guarding, v, _ *recovertest.Guest) {
			removed(v)
			v.Forgotten()
		}, true},
		{"undefined, and then its files are deleted", func(g *guarding, v, _ *recovertest.Guest) {
			v.Forgotten()
			g.awaitUndefined(v)
			v.Rm()
		}, true},
		{"an accident, and Nova fails to start it", func(_ *guarding, v, _ *recovertest.Guest) {
			v.Rm()
			v.Forgotten()
		}, false},
		{"Nova failed to start it, and a part is deleted", func(g *guarding, v, _ *recovertest.Guest) {
			v.Forgotten()
			g.awaitUndefined(v)
			recovertest.Must(t, os.Remove(v.Console))
		}, false},
		{"Nova failed to start it, and the accident comes to all", func(g *guarding, v, other *recovertest.Guest) {
			v.Forgotten()
			g.awaitUndefined(v)
			v.Rm()
			other.Rm()
		}, false},
		{"Nova removes the files, and libvirt its UEFI variables as it undefines the domain", func(_ *guarding, v, _ *recovertest.Guest) {
			removed(v)
			recovertest.Must(t, os.Remove(variables(v)))
			v.Forgotten()
		}, true},
		{"its UEFI variables go in a hard reboot that fails, and the accident comes to all", func(g *guarding, v, other *recovertest.Guest) {
			recovertest.Must(t, os.Remove(variables(v)))
			v.Forgotten()
			g.awaitUndefined(v)
			v.Rm()
			other.Rm()
		}, false},
		{"an accident that also takes its UEFI variables", func(_ *guarding, v, _ *recovertest.Guest) {
			v.Rm()
			recovertest.Must(t, os.Remove(variables(v)))
			v.Forgotten()
		}, false},
		{"its UEFI variables go in a hard reboot that fails", func(_ *guarding, v, _ *recovertest.Guest) {
			recovertest.Must(t, os.Remove(variables(v)))
			v.Forgotten()
		}, false},
		{"a volume's UEFI variables go in a hard reboot that fails", func(_ *guarding, v, _ *recovertest.Guest) {
			recovertest.Must(t, os.Remove(variables(v)))
			v.Forgotten()
		}, false},
		{"a volume's UEFI variables go with its directory", func(_ *guarding, v, _ *recovertest.Guest) {
			removed(v)
			recovertest.Must(t, os.Remove(variables(v)))
			v.Forgotten()
		}, true},
		{"removed as by Nova, while libvirt knows it", func(_ *guarding, v, _ *recovertest.Guest) { removed(v) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := runtest.NewHost(t)
			v, other := h.Add(1, recovertest.GuestOptions{Console: true}), h.Add(2, recovertest.GuestOptions{})
			if strings.Contains(c.name, "UEFI") {
				v.Destroyed()
				recovertest.Must(t, os.WriteFile(variables(v), recovertest.Payload(5, 8<<10), 0o600))
				h.HV.Change(v.UUID, func(d *recovertest.FakeDomain) { d.NVRAM = variables(v) })
				if strings.Contains(c.name, "volume") { // that has no other files
					recovertest.Must(t, errors.Join(os.Remove(v.Disk), os.Remove(v.Console)))
					h.HV.Change(v.UUID, func(d *recovertest.FakeDomain) {
						d.Disks[0].Chain, d.ConsoleLogs = []recover.Image{{Source: recover.SourceNetwork}}, nil
					})
				}
				recovertest.Must(t, h.HV.Start(t.Context(), v.UUID, false))
			}
			g := startGuard(h, guard.Options{Grace: time.Hour}, nil, nil)
			g.awaitScan()
			v.Destroyed()
			g.await("it is off", func(s guard.Status) bool { return s.Report.Instances[0].State == recover.StateShutOff })
			c.do(g, v, other)
			if c.orderly {
				g.await("it is let go", func(s guard.Status) bool { return s.Held.DeletedFiles == 0 && s.Released[keeper.ReleasedDeleted] > 0 })
				return
			}
			g.await("the deletion", func(s guard.Status) bool { return s.Held.DeletedFiles > 0 })
			time.Sleep(time.Second) // in which it could have been let go
			// A guard that looked between the renaming and the removal knows it by its last name.
			p := g.paths()
			_, held := p[v.Disk]
			_, renamed := p[filepath.Join(v.Dir+"_del", filepath.Base(v.Disk))]
			_, stored := p[variables(v)]
			if !held && !renamed && !stored {
				t.Errorf("it holds %v", p)
			}
		})
	}
}

// awaitUndefined waits until the guard knows that libvirt does not know the guest any more.
func (g *guarding) awaitUndefined(v *recovertest.Guest) {
	g.t.Helper()
	g.await("it is undefined", func(s guard.Status) bool {
		for _, i := range s.Report.Instances {
			if i.UUID == v.UUID && !i.GuardOnly && !strings.Contains(strings.Join(i.Reasons, " "), "no longer knows its domain") {
				return false
			}
		}
		return true
	})
	time.Sleep(20 * time.Millisecond) // the kernel's clock of files has a coarse grain
}

// What a QEMU writes stays held, whatever libvirt and an operator say of its instance.
func TestAFileThatAQEMUWritesIsNeverLetGo(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	h.Online()
	// Libvirt has lost its domain, and it lives.
	qemu, err := recovertest.Hold("qemu-system-x86_64", nil, []recover.File{{Path: v.Disk, Writable: true}}, nil)
	recovertest.Must(t, err)
	defer qemu.End()
	g := startGuard(h, guard.Options{Grace: time.Nanosecond, MinFree: 2}, nil, nil)
	g.awaitScan()
	v.Forgotten()
	v.Rm()
	h.Cloud.Deletes(v.UUID)
	g.await("the deletion", func(s guard.Status) bool { return s.Held.DeletedFiles > 0 })
	time.Sleep(time.Second) // in which it could have been let go
	if err := guard.ReleaseByHand(t.Context(), h.Settings.StateDir, v.UUID); err == nil {
		t.Error("an operator's word lets it go")
	}
	if p := g.paths(); !p[v.Disk] {
		t.Errorf("it holds %v", p)
	}
	qemu.End()
	g.await("it has ended", func(s guard.Status) bool { return s.Held.DeletedFiles == 0 })
}

// Who ends a guard a moment after a deletion ends nothing else.
func TestAGuardLeavesNothingBehindThatMayBeNeeded(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	g := startGuard(h, guard.Options{Interval: time.Hour}, nil, nil)
	g.awaitScan()
	extra, base := filepath.Join(v.Dir, "disk.new"), filepath.Join(filepath.Dir(v.Dir), "_base", "new")
	recovertest.Must(t, os.MkdirAll(filepath.Dir(base), 0o755))
	for _, path := range []string{extra, base} {
		recovertest.Must(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	g.await("what is new is held", func(guard.Status) bool {
		p := g.paths()
		_, has := p[extra]
		_, hasBase := p[base]
		return has && hasBase
	})
	for _, path := range []string{extra, base, v.Disk} {
		recovertest.Must(t, os.Remove(path))
	}
	recovertest.Must(t, g.stop())
	c, err := keeper.Connect(t.Context(), h.Settings.StateDir)
	recovertest.Must(t, err)
	defer c.Close()
	list, err := c.List(t.Context())
	recovertest.Must(t, err)
	if len(list) != 3 {
		t.Errorf("the keeper has %+v", list)
	}
}
