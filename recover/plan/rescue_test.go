package plan_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/scan"
)

func TestThePlanIsTheLeastThatHelps(t *testing.T) {
	for name, c := range map[string]struct {
		add    recovertest.GuestOptions
		damage func(*runtest.Host, *recovertest.Guest)
		action recover.Action
		steps  []string // in this order
		never  string
	}{
		"nothing lost": {
			add:    recovertest.GuestOptions{Base: "b"},
			damage: func(*runtest.Host, *recovertest.Guest) {},
			action: recover.ActionNone,
		},
		"the base alone": {
			add:    recovertest.GuestOptions{Base: "b"},
			damage: func(_ *runtest.Host, g *recovertest.Guest) { os.Remove(g.Base) },
			action: recover.ActionPutBack,
			steps:  []string{"put back"},
			never:  "destroy",
		},
		"disk.info alone": {
			add:    recovertest.GuestOptions{},
			damage: func(_ *runtest.Host, g *recovertest.Guest) { os.Remove(g.Dir + "/disk.info") },
			action: recover.ActionPutBack,
			steps:  []string{"make "},
			never:  "destroy",
		},
		"config drive and console log": {
			add:    recovertest.GuestOptions{Config: true, Console: true},
			damage: func(_ *runtest.Host, g *recovertest.Guest) { os.Remove(g.Console); os.Remove(g.Dir + "/disk.config") },
			action: recover.ActionPutBack,
			steps:  []string{"put back"},
			never:  "suspend",
		},
		"the disk alone": {
			add:    recovertest.GuestOptions{Base: "b"},
			damage: func(_ *runtest.Host, g *recovertest.Guest) { os.Remove(g.Disk) },
			action: recover.ActionReboot,
			steps:  []string{"suspend", "copy", "destroy", "publish", "start the domain and"},
			never:  "put back",
		},
		"everything": {
			add:    recovertest.GuestOptions{Base: "b", Console: true},
			damage: func(h *runtest.Host, _ *recovertest.Guest) { h.Purge() },
			action: recover.ActionReboot,
			steps:  []string{"put back", "make ", "suspend", "copy", "destroy", "publish", "start the domain and"},
			never:  "paused",
		},
		"a console log, of a guest with disks that are hands off": {
			add: recovertest.GuestOptions{Console: true},
			damage: func(h *runtest.Host, g *recovertest.Guest) {
				os.Remove(g.Console)
				h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
					d.Disks[0].Unusual, d.Disks[0].LostAtEnd = []string{"slices"}, []string{"it is transient"}
				})
			},
			action: recover.ActionPutBack,
			steps:  []string{"put back"},
			never:  "destroy",
		},
		"everything, of a paused guest": {
			add:    recovertest.GuestOptions{State: recover.StatePaused},
			damage: func(h *runtest.Host, _ *recovertest.Guest) { h.Purge() },
			action: recover.ActionReboot,
			steps:  []string{"leave the guest paused", "copy", "destroy", "publish", "start the domain paused"},
			never:  "freeze",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, c.add)
			c.damage(h, g)
			todo := h.Planned(g, recover.CommandRescue, recovertest.Options(g))
			if todo.Action != c.action {
				t.Fatalf("%s (%s)", todo.Action, todo.Refusal)
			}
			text := strings.Join(todo.Steps, "\n")
			if c.never != "" && strings.Contains(text, c.never) {
				t.Errorf("%q is no part of it:\n%s", c.never, text)
			}
			rest := text
			for _, want := range c.steps {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("%q does not come in its turn:\n%s", want, text)
				}
				rest = after
			}
		})
	}
}

func TestAnInstanceIsRefusedWithTheReason(t *testing.T) {
	change := func(do func(*recovertest.FakeDomain)) func(*runtest.Host, *recovertest.Guest) {
		return func(h *runtest.Host, g *recovertest.Guest) { h.HV.Change(g.UUID, do) }
	}
	for name, c := range map[string]struct {
		add    recovertest.GuestOptions
		damage func(*runtest.Host, *recovertest.Guest)
		o      func(*recover.Options)
		says   string
	}{
		"another size stands at the path": {damage: func(_ *runtest.Host, g *recovertest.Guest) {
			os.MkdirAll(g.Dir, 0o755)
			os.WriteFile(g.Disk, []byte("short"), 0o600)
		}, says: recover.ErrConflict.Error()},
		"a symlink at UUID/disk": {damage: func(_ *runtest.Host, g *recovertest.Guest) {
			os.MkdirAll(g.Dir, 0o755)
			os.Symlink("/etc/passwd", g.Disk)
		}, says: g1("disk")},
		"a directory at UUID/disk": {damage: func(_ *runtest.Host, g *recovertest.Guest) { os.MkdirAll(g.Disk, 0o755) }, says: "no regular file"},
		"a symlink of another user at UUID": {damage: func(h *runtest.Host, g *recovertest.Guest) {
			h.Chown()
			os.Symlink(filepath.Dir(h.Settings.InstancesPath), g.Dir)
			os.Lchown(g.Dir, 65534, 65534)
		}, says: "symlink"},
		"a symlink of another user at _base": {add: recovertest.GuestOptions{Base: "b"}, damage: func(h *runtest.Host, g *recovertest.Guest) {
			h.Chown()
			base := filepath.Join(h.Settings.InstancesPath, "_base")
			os.Symlink(filepath.Dir(h.Settings.InstancesPath), base)
			os.Lchown(base, 65534, 65534)
		}, says: "symlink"},
		"its domain is transient": {damage: change(func(d *recovertest.FakeDomain) { d.Persistent = false }), says: "transient"},
		"paused for an I/O error": {
			damage: change(func(d *recovertest.FakeDomain) { d.State, d.PauseReason = recover.StatePaused, recover.PauseIOError }),
			says:   "I/O error",
		},
		"migrating": {damage: change(func(d *recovertest.FakeDomain) { d.Job = "migration out" }), says: "migration out"},
		"a block job": {
			damage: change(func(d *recovertest.FakeDomain) { d.BlockJobs = map[string]string{"vda": "commit"} }),
			says:   "vda commit",
		},
		"no Nova metadata, and --all": {
			add:  recovertest.GuestOptions{NoNova: true},
			o:    func(o *recover.Options) { o.Selection = recover.Selection{All: true} },
			says: "no Nova metadata",
		},
		"a stale pid file":            {damage: change(func(d *recovertest.FakeDomain) { d.PID = os.Getpid() }), says: procfs.ErrNotQEMU.Error()},
		"no pid file":                 {damage: change(func(d *recovertest.FakeDomain) { d.PID = 0 }), says: procfs.ErrNotQEMU.Error()},
		"off, and everything is gone": {damage: change((*recovertest.FakeDomain).Off), says: "nobody holds it"},
		"a disk that os-rescue does not know": {
			damage: change(func(d *recovertest.FakeDomain) { d.Disks[0].Unusual = []string{"slices"} }),
			says:   "slices",
		},
		"a disk that ends with its QEMU": {
			damage: change(func(d *recovertest.FakeDomain) { d.Disks[0].LostAtEnd = []string{"it is transient"} }),
			says:   "must not be ended, because of disk vda: it is transient",
		},
		"libvirt calls a raw file a qcow2 image": {
			damage: change(func(d *recovertest.FakeDomain) { d.Disks[0].Chain[0].Format = "qcow2" }),
			says:   "qcow2",
		},
		"a fifo at the path of the backing file": {
			add: recovertest.GuestOptions{Base: "b"},
			damage: func(_ *runtest.Host, g *recovertest.Guest) {
				os.MkdirAll(filepath.Dir(g.Base), 0o755)
				unix.Mkfifo(g.Base, 0o600)
			},
			says: "no regular file",
		},
		"a backup of it is in the directory given": {
			o: func(o *recover.Options) {
				o.BackupDir = filepath.Join(os.TempDir(), fmt.Sprint("recover-test-", os.Getpid()))
			},
			damage: func(_ *runtest.Host, g *recovertest.Guest) {
				os.MkdirAll(filepath.Join(os.TempDir(), fmt.Sprint("recover-test-", os.Getpid()), g.UUID), 0o700)
			},
			says: "already",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { os.RemoveAll(filepath.Join(os.TempDir(), fmt.Sprint("recover-test-", os.Getpid()))) })
			h := runtest.NewHost(t)
			g := h.Add(1, c.add)
			pid := h.HV.Get(g.UUID).PID
			h.Purge()
			if c.damage != nil {
				c.damage(h, g)
			}
			o := recovertest.Options(g)
			if c.o != nil {
				c.o(&o)
			}
			before := h.HV.Get(g.UUID)
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, c.says) {
				t.Errorf("%+v; want %q", r, c.says)
			}
			for _, method := range []string{"suspend", "freeze", "destroy"} {
				if h.HV.Called(method, g.UUID) > 0 {
					t.Errorf("%s was called", method)
				}
			}
			if after := h.HV.Get(g.UUID); after.State != before.State || pid != 0 && after.QEMU != before.QEMU {
				t.Errorf("it was %s and is %s", before.State, after.State)
			}
			if left := h.Staged(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func g1(name string) string { return recovertest.UUID(1) + "/" + name }

func TestAQcow2HeaderThatSaysOtherThanLibvirtStopsItsInstance(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, g *recovertest.Guest)
		ok   bool
		says string
	}{
		"the same backing file": {
			make: func(t *testing.T, g *recovertest.Guest) {
				recovertest.CreateQcow2(t, "-F", "raw", "-b", g.Base, g.Disk, "1M")
			},
			ok: true,
		},
		"the same, by a relative path": {
			make: func(t *testing.T, g *recovertest.Guest) {
				recovertest.CreateQcow2(t, "-F", "raw", "-b", "../_base/b", g.Disk, "1M")
			},
			ok: true,
		},
		"the same, with a feature of a later QEMU": {
			make: func(t *testing.T, g *recovertest.Guest) {
				recovertest.CreateQcow2(t, "-F", "raw", "-b", g.Base, g.Disk, "1M")
				f, err := os.OpenFile(g.Disk, os.O_RDWR, 0)
				recovertest.Must(t, err)
				defer f.Close()
				_, err = f.WriteAt([]byte{4}, 72+6) // incompatible_features, bit 10
				recovertest.Must(t, err)
			},
			ok: true,
		},
		"another backing file": {
			make: func(t *testing.T, g *recovertest.Guest) {
				recovertest.CreateQcow2(t, "-u", "-F", "raw", "-b", "/etc/shadow", g.Disk, "1M")
			},
			says: "/etc/shadow",
		},
		"no backing file": {make: func(t *testing.T, g *recovertest.Guest) { recovertest.CreateQcow2(t, g.Disk, "1M") }, says: "backing file"},
		"an external data file": {make: func(t *testing.T, g *recovertest.Guest) {
			recovertest.CreateQcow2(t, "-o", "data_file="+filepath.Join(g.Dir, "data"), g.Disk, "1M")
		}, says: "external data file"},
		"an image that is corrupt in itself": {make: func(t *testing.T, g *recovertest.Guest) {
			recovertest.CreateQcow2(t, "-F", "raw", "-b", g.Base, g.Disk, "1M")
			recovertest.Corrupt(t, g.Disk)
		}, says: "corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", State: recover.StateShutOff})
			recovertest.Must(t, os.Remove(g.Disk))
			c.make(t, g)
			data, err := os.ReadFile(g.Disk)
			recovertest.Must(t, err)
			g.Content[g.Disk] = data
			h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Disks[0].Chain[0].Format = "qcow2" })
			recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
			pid := h.HV.Get(g.UUID).PID
			info, err := scan.DiskInfoContent(scan.DiskInfo(h.HV.Get(g.UUID).Domain, h.Settings.InstancesPath))
			recovertest.Must(t, err)
			g.Content[g.Dir+"/disk.info"] = []byte(info)
			h.Purge()
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			r := g.Report(report)
			if c.ok {
				if r.Outcome != recover.OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				return
			}
			if r.Outcome == recover.OutcomeRescued || !strings.Contains(r.Error, c.says) {
				t.Errorf("%+v; want %q", r, c.says)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
		})
	}
}

func TestASymlinkOfRootsAboveTheInstancesDirectoryIsFollowed(t *testing.T) {
	h := runtest.NewHost(t)
	// In a directory that only root can write, unlike those for temporary files.
	dir, err := os.MkdirTemp("/run", "recover-test-")
	recovertest.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	recovertest.Must(t, os.MkdirAll(dir+"/srv/instances", 0o755))
	recovertest.Must(t, os.Symlink("srv", dir+"/nova"))
	h.Settings.InstancesPath = dir + "/nova/instances"
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
	h.Purge()
	if i := h.Scan(g); i.Verdict != recover.VerdictRecoverable {
		t.Fatalf("%s %v", i.Verdict, i.Reasons)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

func TestAnInstanceWithNoLocalFilesIsUnaffected(t *testing.T) {
	h := runtest.NewHost(t)
	h.HV.Add(recover.Domain{
		UUID:       recovertest.UUID(1),
		Name:       "instance-00000001",
		State:      recover.StateShutOff,
		Persistent: true,
		Disks:      []recover.Disk{{Target: "vda", Chain: []recover.Image{{Source: recover.SourceBlock, Path: "/dev/sdb"}}}},
	}, false)
	g := &recovertest.Guest{H: h.Host, UUID: recovertest.UUID(1)}
	todo := h.Planned(g, recover.CommandRescue, recovertest.Options(g))
	if todo.Action != recover.ActionNone || todo.Verdict != recover.VerdictUnaffected {
		t.Errorf("%+v", todo)
	}
}
