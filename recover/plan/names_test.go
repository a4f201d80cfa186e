package plan_test

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

// protect sets an attribute of a path until the test's end.
func protect(t *testing.T, flag, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", "+"+flag, path).CombinedOutput(); err != nil {
		t.Fatalf("chattr +%s %s: %s", flag, path, out)
	}
	t.Cleanup(func() { _ = exec.Command("chattr", "-"+flag, path).Run() })
}

// mountOver mounts another file of the same file system on one until the test's end.
func mountOver(t *testing.T, h *runtest.Host, path string) {
	t.Helper()
	other := filepath.Join(filepath.Dir(h.Settings.StateDir), "mounted")
	recovertest.Must(t, os.WriteFile(other, []byte("another"), 0o600))
	recovertest.Must(t, unix.Mount(other, path, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

func TestWhatKeepsAFileFromItsNameIsFoundByThePlan(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, h *runtest.Host, g *recovertest.Guest)
		o      func(*recover.Options)
		says   []string // nothing: it is no obstacle
		all    bool     // another instance is refused as well
	}{
		"its directory is immutable": {
			damage: func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Disk))
				protect(t, "i", g.Dir)
			},
			says: []string{g1("disk"), "chattr -i", recovertest.UUID(1)},
		},
		"its directory is append-only": {
			damage: func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Disk))
				protect(t, "a", g.Dir)
			},
			says: []string{"chattr -a"},
		},
		"a file of it that is in place is immutable": {
			damage: func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Disk))
				protect(t, "i", g.Console)
			},
		},
		"the directory is gone, and the one above is immutable": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.RemoveAll(g.Dir))
				protect(t, "i", h.Settings.InstancesPath)
			},
			says: []string{"instances is immutable"},
			all:  true,
		},
		"nothing can be staged": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Disk))
				protect(t, "a", h.Settings.InstancesPath)
			},
			says: []string{"instances is append-only"},
			all:  true,
		},
		"the directory of its base is immutable": {
			damage: func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Base))
				protect(t, "i", filepath.Dir(g.Base))
			},
			says: []string{"_base is immutable"},
		},
		"the directory of Nova's locks is immutable, and its base is lost": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Base))
				recovertest.Must(t, os.Mkdir(filepath.Join(h.Settings.InstancesPath, "locks"), 0o755))
				protect(t, "i", filepath.Join(h.Settings.InstancesPath, "locks"))
			},
			says: []string{"locks is immutable"},
		},
		"what is to be moved aside is immutable": {
			damage: func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Disk))
				recovertest.Must(t, os.WriteFile(g.Disk, []byte("another"), 0o600))
				protect(t, "i", g.Disk)
			},
			o:    func(o *recover.Options) { o.ReplaceExisting = true },
			says: []string{g1("disk"), "chattr -i"},
		},
		"something is mounted on what is to be moved aside": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Disk))
				recovertest.Must(t, os.WriteFile(g.Disk, nil, 0o600))
				mountOver(t, h, g.Disk)
			},
			o:    func(o *recover.Options) { o.ReplaceExisting = true },
			says: []string{g1("disk"), "mount point", "umount"},
		},
		"its tree is mounted read-only": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Remove(g.Disk))
				tree := h.Settings.InstancesPath
				recovertest.Must(t, unix.Mount(tree, tree, "", unix.MS_BIND, ""))
				t.Cleanup(func() { _ = unix.Unmount(tree, unix.MNT_DETACH) })
				recovertest.Must(t, unix.Mount("", tree, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
			},
			says: []string{"mounted read-only"},
			all:  true,
		},
		"it is moved back into an immutable directory": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Rename(g.Disk, filepath.Join(h.Settings.InstancesPath, "elsewhere")))
				protect(t, "i", g.Dir)
			},
			says: []string{"chattr -i"},
		},
		"it is moved back out of an append-only directory": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				away := filepath.Join(h.Settings.InstancesPath, "away")
				recovertest.Must(t, os.Mkdir(away, 0o755))
				recovertest.Must(t, os.Rename(g.Disk, away+"/disk"))
				protect(t, "a", away)
			},
			says: []string{"away is append-only"},
		},
		"it is linked back into an append-only directory": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Link(g.Disk, filepath.Join(h.Settings.InstancesPath, "second")))
				recovertest.Must(t, os.Remove(g.Disk))
				protect(t, "a", g.Dir)
			},
		},
		"what is linked back is immutable": {
			damage: func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
				second := filepath.Join(h.Settings.InstancesPath, "second")
				recovertest.Must(t, os.Link(g.Disk, second))
				recovertest.Must(t, os.Remove(g.Disk))
				protect(t, "i", second)
			},
			says: []string{"chattr -i"},
		},
		"a directory that gets its owner is immutable": {
			damage: func(t *testing.T, _ *runtest.Host, g *recovertest.Guest) {
				recovertest.Must(t, os.Chown(g.Dir, 65534, 65534))
				protect(t, "i", g.Dir)
			},
			says: []string{"owner and mode", "chattr -i"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
			other := h.Add(2, recovertest.GuestOptions{})
			recovertest.Must(t, os.Remove(other.Disk))
			c.damage(t, h, g)
			o := recovertest.Options(g)
			o.Selection = recover.Selection{All: true}
			if c.o != nil {
				c.o(&o)
			}
			todo := h.Planned(g, recover.CommandRescue, o)
			if (todo.Action == recover.ActionRefuse) != (len(c.says) > 0) {
				t.Fatalf("%s: %s", todo.Action, todo.Refusal)
			}
			for _, want := range c.says {
				if !strings.Contains(todo.Refusal, want) {
					t.Errorf("%q; want %q", todo.Refusal, want)
				}
			}
			if todo := h.Planned(other, recover.CommandRescue, o); (todo.Action == recover.ActionRefuse) != c.all {
				t.Errorf("the other one: %s: %s", todo.Action, todo.Refusal)
			}
		})
	}
}
