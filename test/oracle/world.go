package oracle

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

const (
	keptDir = lab.NovaDir + "/kept"   // hard links
	oldDir  = lab.NovaDir + "/backup" // copies of an earlier day
)

// host is the lab that all sequences share, one after the other.
type host struct {
	t          *testing.T
	lab        *lab.Lab
	binary     string
	connection *libvirt.Connect
}

// newHost starts the lab.
func newHost(t *testing.T) *host {
	t.Helper()
	// Its file system shall give freed inode numbers to the next files, as ext4 does.
	h := &host{t: t, lab: lab.New(t, lab.Options{Size: 512 << 20})}
	h.binary = h.lab.Binary(t)
	// As on a real host: what is mounted here is mounted so for a running QEMU too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := bare.MakeSocketDir(); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.connection, err = libvirt.NewConnect("qemu:///system"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.wipe(); err != nil { // what is mounted would keep the lab from its end
			t.Errorf("wipe the host: %v", err)
		}
		_, _ = h.connection.Close()
	})
	return h
}

// world is the host in one sequence.
type world struct {
	*host
	guests  []*guest
	guard   *lab.Process // nil while none runs
	aside   []move       // what was renamed, in order
	writes  int
	backups int
	notes   []string // what happened beside the steps
	last    *run     // what a run of os-rescue said in this step; nil in other steps

	// What was true when last looked, and what os-rescue said then.
	truths   map[*guest]truth
	verdicts map[*guest]recover.Instance
	check    lab.Result

	// base is what the base holds, and bases are the files that have held it.
	base  []byte
	bases map[identity]bool
	// places are where the files that QEMU opened for the guests' disks were then.
	places map[identity]string
}

// move is a rename that can be undone.
type move struct{ from, to string }

// build makes a world with guests that run. The world before must be gone.
func (h *host) build(layouts []layout) (*world, error) {
	w := &world{host: h, base: baseContent().bytes(chunks / 2), bases: map[identity]bool{}, places: map[identity]string{}}
	for n, l := range layouts {
		g, err := newGuest(h.t.Context(), h.connection, n+1, l)
		if err != nil {
			return nil, err
		}
		w.guests = append(w.guests, g)
		if err := g.domain.Create(); err != nil {
			return nil, err
		}
	}
	return w, w.refresh()
}

// wipe ends everything that a sequence has left behind.
func (h *host) wipe() error { return bare.Wipe(h.t, h.connection, h.binary) }

// refresh notes which QEMU each guest has now, and what a new one has opened.
func (w *world) refresh() error {
	for _, g := range w.guests {
		pid := lab.QemuPID(g.name)
		if pid == g.pid {
			if pid != 0 {
				w.follow(g)
			}
			continue
		}
		g.pid = pid
		if pid == 0 { // what was attached to the running guest alone is nobody's now
			defined, err := bare.Disks(g.domain, libvirt.DOMAIN_XML_INACTIVE)
			if err != nil {
				return err
			}
			g.keep(defined)
			continue
		}
		if err := w.started(g); err != nil {
			return err
		}
	}
	return nil
}

// started notes what a QEMU that has just been started has open: what is at the paths
// of its definition.
func (w *world) started(g *guest) error {
	disks, err := bare.Disks(g.domain, 0)
	if err != nil {
		return err
	}
	var now []*disk
	for _, defined := range disks {
		d := g.disk(defined.Target.Dev)
		if d == nil {
			continue // attached, and known to nobody since
		}
		d.path, d.format = bare.Source(defined), defined.Driver.Type
		w.take(d)
		now = append(now, d)
	}
	g.disks = now
	return nil
}

// take notes which files a disk is made of by now: those at their paths.
func (w *world) take(d *disk) {
	old := d.tops
	d.tops = nil
	for _, path := range chainOf(w.t.Context(), d.path, d.format) {
		if id, _, err := bare.Identify(path); err == nil && path != d.base {
			d.tops = append(d.tops, id)
			w.places[id] = path
		}
	}
	if !slices.Equal(old, d.tops) {
		d.past = append(d.past, old...)
	}
}

// follow notes that a disk of a running guest was moved onto another file, as a live
// rescue does.
func (w *world) follow(g *guest) {
	disks, err := bare.Disks(g.domain, 0)
	if err != nil {
		return
	}
	open, err := openFiles(g.pid)
	if err != nil {
		return
	}
	g.keep(disks)
	has := map[identity]bool{}
	for _, f := range open {
		if f.writable {
			has[f.identity] = true
		}
	}
	for _, defined := range disks {
		d := g.disk(defined.Target.Dev)
		if d == nil || d.readonly || len(d.tops) > 0 && has[d.tops[0]] {
			continue
		}
		if id, _, err := bare.Identify(bare.Source(defined)); err == nil && has[id] {
			d.past = append(d.past, d.tops...)
			d.tops = append([]identity{id}, d.tops[min(1, len(d.tops)):]...)
			d.path = bare.Source(defined)
			w.places[id] = d.path
		}
	}
}

// osRescue runs os-rescue to its end.
func (w *world) osRescue(args ...string) lab.Result {
	w.t.Helper()
	return w.lab.Run(w.t, guardEnvironment(), args...)
}

// guardEnvironment has the guard look often, so that no step waits long.
func guardEnvironment() []string { return []string{"OS_RESCUE_GUARD_INTERVAL=1s", "NO_COLOR=1"} }

// shell runs a command of the operator.
func (w *world) shell(ctx context.Context, command string) error {
	if out, err := exec.CommandContext(ctx, "bash", "-c", command).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// short is a path or text as the list of steps shows it.
func short(text string) string {
	text = strings.ReplaceAll(text, lab.InstancesDir, "instances")
	return strings.ReplaceAll(text, "-0000-4000-8000-000000000000", "")
}
