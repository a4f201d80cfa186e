package recover

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestThePlanIsTheLeastThatHelps(t *testing.T) {
	for name, c := range map[string]struct {
		add    guestOptions
		damage func(*host, *testGuest)
		action Action
		steps  []string // in this order
		never  string
	}{
		"nothing lost": {add: guestOptions{base: "b"}, damage: func(*host, *testGuest) {}, action: ActionNone},
		"the base alone": {
			add:    guestOptions{base: "b"},
			damage: func(_ *host, g *testGuest) { os.Remove(g.base) },
			action: ActionPutBack,
			steps:  []string{"put back"},
			never:  "destroy",
		},
		"disk.info alone": {
			add:    guestOptions{},
			damage: func(_ *host, g *testGuest) { os.Remove(g.dir + "/disk.info") },
			action: ActionPutBack,
			steps:  []string{"make "},
			never:  "destroy",
		},
		"config drive and console log": {
			add:    guestOptions{config: true, console: true},
			damage: func(_ *host, g *testGuest) { os.Remove(g.console); os.Remove(g.dir + "/disk.config") },
			action: ActionPutBack,
			steps:  []string{"put back"},
			never:  "suspend",
		},
		"the disk alone": {
			add:    guestOptions{base: "b"},
			damage: func(_ *host, g *testGuest) { os.Remove(g.disk) },
			action: ActionReboot,
			steps:  []string{"suspend", "copy", "destroy", "publish", "start the domain and"},
			never:  "put back",
		},
		"everything": {
			add:    guestOptions{base: "b", console: true},
			damage: func(h *host, _ *testGuest) { h.purge() },
			action: ActionReboot,
			steps:  []string{"put back", "make ", "suspend", "copy", "destroy", "publish", "start the domain and"},
			never:  "paused",
		},
		"everything, of a paused guest": {
			add:    guestOptions{state: StatePaused},
			damage: func(h *host, _ *testGuest) { h.purge() },
			action: ActionReboot,
			steps:  []string{"leave the guest paused", "copy", "destroy", "publish", "start the domain paused"},
			never:  "freeze",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, c.add)
			c.damage(h, g)
			todo := h.planned(g, CommandRescue, options(g))
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
	change := func(do func(*fakeDomain)) func(*host, *testGuest) {
		return func(h *host, g *testGuest) { h.hv.change(g.uuid, do) }
	}
	for name, c := range map[string]struct {
		add    guestOptions
		damage func(*host, *testGuest)
		o      func(*Options)
		says   string
	}{
		"another size stands at the path": {damage: func(_ *host, g *testGuest) {
			os.MkdirAll(g.dir, 0o755)
			os.WriteFile(g.disk, []byte("short"), 0o600)
		}, says: ErrConflict.Error()},
		"a symlink at UUID/disk": {damage: func(_ *host, g *testGuest) {
			os.MkdirAll(g.dir, 0o755)
			os.Symlink("/etc/passwd", g.disk)
		}, says: g1("disk")},
		"a directory at UUID/disk": {damage: func(_ *host, g *testGuest) { os.MkdirAll(g.disk, 0o755) }, says: "no regular file"},
		"a symlink of another user at UUID": {damage: func(h *host, g *testGuest) {
			chownTree(h)
			os.Symlink(filepath.Dir(h.settings.InstancesPath), g.dir)
			os.Lchown(g.dir, 65534, 65534)
		}, says: "symlink"},
		"a symlink of another user at _base": {add: guestOptions{base: "b"}, damage: func(h *host, g *testGuest) {
			chownTree(h)
			base := filepath.Join(h.settings.InstancesPath, "_base")
			os.Symlink(filepath.Dir(h.settings.InstancesPath), base)
			os.Lchown(base, 65534, 65534)
		}, says: "symlink"},
		"its domain is transient": {damage: change(func(d *fakeDomain) { d.Persistent = false }), says: "transient"},
		"paused for an I/O error": {
			damage: change(func(d *fakeDomain) { d.State, d.PauseReason = StatePaused, PauseIOError }),
			says:   "I/O error",
		},
		"migrating": {damage: change(func(d *fakeDomain) { d.Job = "migration out" }), says: "migration out"},
		"a block job": {
			damage: change(func(d *fakeDomain) { d.BlockJobs = map[string]string{"vda": "commit"} }),
			says:   "vda commit",
		},
		"no Nova metadata, and --all": {
			add:  guestOptions{noNova: true},
			o:    func(o *Options) { o.Selection = Selection{All: true} },
			says: "no Nova metadata",
		},
		"a stale pid file":            {damage: change(func(d *fakeDomain) { d.PID = os.Getpid() }), says: errNotQEMU.Error()},
		"no pid file":                 {damage: change(func(d *fakeDomain) { d.PID = 0 }), says: errNotQEMU.Error()},
		"off, and everything is gone": {damage: change((*fakeDomain).off), says: "nobody holds it"},
		"a disk that os-rescue does not know": {
			damage: change(func(d *fakeDomain) { d.Disks[0].Unusual = []string{"slices"} }),
			says:   "slices",
		},
		"libvirt calls a raw file a qcow2 image": {damage: change(func(d *fakeDomain) { d.Disks[0].Chain[0].Format = "qcow2" }), says: "qcow2"},
		"a fifo at the path of the backing file": {
			add:    guestOptions{base: "b"},
			damage: func(_ *host, g *testGuest) { os.MkdirAll(filepath.Dir(g.base), 0o755); unix.Mkfifo(g.base, 0o600) },
			says:   "no regular file",
		},
		"a backup of it is in the directory given": {
			o: func(o *Options) { o.BackupDir = filepath.Join(os.TempDir(), fmt.Sprint("recover-test-", os.Getpid())) },
			damage: func(_ *host, g *testGuest) {
				os.MkdirAll(filepath.Join(os.TempDir(), fmt.Sprint("recover-test-", os.Getpid()), g.uuid), 0o700)
			},
			says: "already",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { os.RemoveAll(filepath.Join(os.TempDir(), fmt.Sprint("recover-test-", os.Getpid()))) })
			h := newHost(t)
			g := h.add(1, c.add)
			pid := h.hv.get(g.uuid).PID
			h.purge()
			if c.damage != nil {
				c.damage(h, g)
			}
			o := options(g)
			if c.o != nil {
				c.o(&o)
			}
			before := h.hv.get(g.uuid)
			report, err := h.run(t.Context(), CommandRescue, o)
			must(t, err)
			r := g.report(report)
			if r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, c.says) {
				t.Errorf("%+v; want %q", r, c.says)
			}
			for _, method := range []string{"suspend", "freeze", "destroy"} {
				if h.hv.called(method, g.uuid) > 0 {
					t.Errorf("%s was called", method)
				}
			}
			if after := h.hv.get(g.uuid); after.State != before.State || pid != 0 && after.qemu != before.qemu {
				t.Errorf("it was %s and is %s", before.State, after.State)
			}
			if left := h.staged(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func g1(name string) string { return testUUID(1) + "/" + name }

func TestAQcow2HeaderThatSaysOtherThanLibvirtStopsItsInstance(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, g *testGuest)
		ok   bool
		says string
	}{
		"the same backing file": {
			make: func(t *testing.T, g *testGuest) { createQcow2(t, "-F", "raw", "-b", g.base, g.disk, "1M") },
			ok:   true,
		},
		"the same, by a relative path": {
			make: func(t *testing.T, g *testGuest) { createQcow2(t, "-F", "raw", "-b", "../_base/b", g.disk, "1M") },
			ok:   true,
		},
		"another backing file": {
			make: func(t *testing.T, g *testGuest) { createQcow2(t, "-u", "-F", "raw", "-b", "/etc/shadow", g.disk, "1M") },
			says: "/etc/shadow",
		},
		"no backing file": {make: func(t *testing.T, g *testGuest) { createQcow2(t, g.disk, "1M") }, says: "backing file"},
		"an external data file": {make: func(t *testing.T, g *testGuest) {
			createQcow2(t, "-o", "data_file="+filepath.Join(g.dir, "data"), g.disk, "1M")
		}, says: "external data file"},
		"an image that is corrupt in itself": {make: func(t *testing.T, g *testGuest) {
			createQcow2(t, "-F", "raw", "-b", g.base, g.disk, "1M")
			corrupt(t, g.disk)
		}, says: "corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{base: "b", state: StateShutOff})
			must(t, os.Remove(g.disk))
			c.make(t, g)
			data, err := os.ReadFile(g.disk)
			must(t, err)
			g.content[g.disk] = data
			h.hv.change(g.uuid, func(d *fakeDomain) { d.Disks[0].Chain[0].Format = "qcow2" })
			must(t, h.hv.Start(t.Context(), g.uuid, false))
			pid := h.hv.get(g.uuid).PID
			info, err := diskInfoContent(diskInfo(h.hv.get(g.uuid).Domain, h.settings.InstancesPath))
			must(t, err)
			g.content[g.dir+"/disk.info"] = []byte(info)
			h.purge()
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			r := g.report(report)
			if c.ok {
				if r.Outcome != OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				must(t, g.serving(StateRunning))
				return
			}
			if r.Outcome == OutcomeRescued || !strings.Contains(r.Error, c.says) {
				t.Errorf("%+v; want %q", r, c.says)
			}
			must(t, g.asFound(StateRunning, pid))
		})
	}
}

func TestASymlinkOfRootsAboveTheInstancesDirectoryIsFollowed(t *testing.T) {
	h := newHost(t)
	// In a directory that only root can write, unlike those for temporary files.
	dir, err := os.MkdirTemp("/run", "recover-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.MkdirAll(dir+"/srv/instances", 0o755))
	must(t, os.Symlink("srv", dir+"/nova"))
	h.settings.InstancesPath = dir + "/nova/instances"
	g := h.add(1, guestOptions{base: "b", console: true})
	h.purge()
	if i := h.scan(g); i.Verdict != VerdictRecoverable {
		t.Fatalf("%s %v", i.Verdict, i.Reasons)
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateRunning))
}

func TestAnInstanceWithNoLocalFilesIsUnaffected(t *testing.T) {
	h := newHost(t)
	h.hv.add(Domain{UUID: testUUID(1), Name: "instance-00000001", State: StateShutOff, Persistent: true,
		Disks: []Disk{{Target: "vda", Chain: []Image{{Source: SourceBlock, Path: "/dev/sdb"}}}}}, false)
	g := &testGuest{h: h, uuid: testUUID(1)}
	if todo := h.planned(g, CommandRescue, options(g)); todo.Action != ActionNone || todo.Verdict != VerdictUnaffected {
		t.Errorf("%+v", todo)
	}
}
