package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// finding is something that os-rescue has lost, or said wrongly.
type finding struct {
	rule string // which rule it breaks: the same finding in another trial has the same
	text string
}

func (f *finding) Error() string { return f.rule + ": " + f.text }

// outcome is how a trial went.
type outcome struct {
	script   script
	log      []string
	finding  *finding // nil when nothing was lost
	injected map[string]int
	acks     int    // writes that were acknowledged
	ended    string // how it ended for the guests, for the table
}

func (o outcome) String() string {
	text := fmt.Sprintf("    CHAOS_SCRIPT='%s'\n", o.script)
	for n, line := range o.log {
		text += fmt.Sprintf("    %2d. %s\n", n+1, line)
	}
	if o.finding != nil {
		text += "    => " + o.finding.Error() + "\n"
	}
	return text
}

// play plays a trial on a clean host. An error is the host's or the harness's.
func (h *host) play(ctx context.Context, s script) (o outcome, err error) {
	w := &world{host: h, script: s, injected: map[string]int{}}
	defer func() {
		o.script, o.log, o.injected = s, w.log, w.injected
		for _, g := range w.guests {
			for _, d := range g.disks {
				o.acks += d.ledger.acknowledged()
			}
		}
	}()
	if err := w.build(ctx); err != nil {
		return o, fmt.Errorf("build the world: %w", err)
	}
	err = w.run(ctx)
	if err == nil {
		err = operator{w}.work(ctx)
	}
	if err == nil {
		o.ended, err = judge{w}.all(ctx)
	}
	for _, g := range w.guests {
		g.writer.end()
	}
	w.heal()
	if errors.As(err, &o.finding) {
		w.noteLogs()
		err = nil
	}
	return o, err
}

// noteLogs notes what the QEMUs have said last.
func (w *world) noteLogs() {
	for _, g := range w.guests {
		body, err := os.ReadFile("/var/log/libvirt/qemu/" + g.name + ".log")
		if err != nil {
			continue
		}
		var said []string
		for line := range strings.Lines(string(body)) {
			if !strings.HasPrefix(line, "-") && !strings.Contains(line, "=") {
				said = append(said, strings.TrimSpace(line))
			}
		}
		w.note("%s: QEMU's log ends: %s", g.name, strings.Join(said[max(0, len(said)-6):], " | "))
	}
}

// build makes guests that run and are written to, and a guard.
func (w *world) build(ctx context.Context) error {
	connection := w.connect()
	defer func() { _, _ = connection.Close() }()
	if err := bare.Wipe(w.t, connection, w.binary); err != nil {
		return err
	}
	if err := makeBase(ctx); err != nil {
		return err
	}
	for n, layout := range w.script.Layouts {
		g, err := newGuest(ctx, connection, n+1, layout)
		if err != nil {
			return err
		}
		g.writer = startWriter(g)
		w.guests = append(w.guests, g)
	}
	if w.script.Guard {
		w.startGuard()
	}
	for _, g := range w.guests {
		patience.Wait(w.t, "writes of "+g.name, func() bool { return g.disks[0].ledger.acknowledged() > 10 })
	}
	return nil
}

// run lets the accident and the rescue with its faults happen.
func (w *world) run(ctx context.Context) error {
	w.note("rm -rf %s/*", lab.InstancesDir)
	if err := ground.EmptyDir(lab.InstancesDir); err != nil {
		return err
	}
	time.Sleep(50 * time.Millisecond)
	return w.struck(ctx, false, "--all", "--offline", "--yes", "--mode", w.script.Mode, "--output", "json")
}

// struck runs os-rescue while faults are injected, and heals them when it has ended.
func (w *world) struck(ctx context.Context, resume bool, args ...string) error {
	dir, err := os.MkdirTemp(ground.ScratchDir, "strikes-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var points []string
	due := map[int]strike{}
	for n, s := range w.script.Strikes {
		if s.Resume != resume {
			continue
		}
		due[n] = s
		program := fmt.Sprintf("%s/strike-%d", dir, n)
		text := fmt.Sprintf("#!/bin/sh\ntouch %[1]s.reached\nuntil [ -e %[1]s.go ]; do sleep 0.02; done\n", program)
		if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
			return err
		}
		points = append(points, fmt.Sprintf("%s#%d=exec:%s", s.Point, s.Nth, program))
	}
	env := environment()
	if len(points) > 0 {
		env = append(env, "OS_RESCUE_FAILPOINT="+strings.Join(points, ","))
	}
	w.command = w.lab.StartCommand(w.t, env, args...)
	var restart time.Time // of what was killed, as systemd would
	for end := time.Now().Add(limit()); !ended(w.command); time.Sleep(5 * time.Millisecond) {
		for n, s := range due {
			program := fmt.Sprintf("%s/strike-%d", dir, n)
			if _, err := os.Stat(program + ".reached"); err != nil {
				continue
			}
			delete(due, n)
			if err := w.strike(ctx, s); err != nil {
				return err
			}
			if err := os.WriteFile(program+".go", nil, 0o600); err != nil {
				return err
			}
			restart = time.Now().Add(time.Duration(500+s.Pick%1500) * time.Millisecond)
		}
		if !restart.IsZero() && time.Now().After(restart) {
			w.lab.StartDaemons(w.t)
			restart = time.Time{}
		}
		if time.Now().After(end) {
			_, stderr := w.command.Output()
			w.command.Signal(w.t, unix.SIGKILL)
			<-w.command.Done()
			return &finding{"os-rescue does not end", strings.Join(args, " ") + "\n" + stderr}
		}
	}
	for _, s := range due {
		w.note("%s was not reached", s)
	}
	w.keep(w.command.Wait(w.t), args)
	w.heal()
	return nil
}

// strike injects the faults of one point, and finds out whether they took the last thing
// that held a disk.
func (w *world) strike(ctx context.Context, s strike) error {
	held := bare.Held()
	before := map[*disk]bare.Identity{}
	for _, g := range w.guests {
		for _, d := range g.disks {
			if id, ok := w.identity(g, d); ok && (held[id] || w.named(id, d)) {
				before[d] = id
			}
		}
	}
	for _, name := range s.Faults {
		f, _ := faultNamed(name)
		err := f.strike(ctx, w, s.Pick)
		switch {
		case errors.Is(err, errNothing):
			w.note("at %s: %s: %v", s.Point, name, err)
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
		w.note("at %s: %s", s.Point, name)
		w.injected[name+" "+s.Point]++
	}
	held = bare.Held()
	for _, g := range w.guests {
		for _, d := range g.disks {
			if id, was := before[d]; was && !held[id] && !w.named(id, d) && !w.proven(g, d) {
				d.forgive(fmt.Sprintf("%s at %s took the last that held it", strings.Join(s.Faults, " and "), s.Point))
				w.note("%s %s: nothing holds it any more, and nothing was proven", g.name, d.Target)
			}
		}
	}
	return nil
}

// identity returns the identity of the file that a disk's QEMU has, or had last.
func (w *world) identity(g *guest, d *disk) (bare.Identity, bool) {
	if link := openedAt(lab.QemuPID(g.name), d.Path); link != "" {
		if id, _, err := bare.Identify(link); err == nil {
			d.last, d.known = id, true
		}
	}
	return d.last, d.known
}

// named is true when a file has its disk's path.
func (w *world) named(id bare.Identity, d *disk) bool {
	at, _, err := bare.Identify(d.Path)
	return err == nil && at == id
}

// proven is true when a run's journal says that it had compared a copy of a disk that its
// suspended guest could not write any more.
func (w *world) proven(g *guest, d *disk) bool {
	path, err := newestJournal()
	if err != nil {
		return false
	}
	records, _ := journal.Read(filepath.Dir(path)) // of a damaged one, what can be read
	suspended, proven := false, false
	for _, r := range records {
		if r.Instance != g.uuid {
			continue
		}
		switch r.Point() {
		case journal.StepSuspend + ".done":
			suspended = true
		case journal.StepContinue + ".begin":
			suspended, proven = false, false
		case journal.StepCompare + ".done":
			proven = proven || suspended && r.Path == d.Path
		}
	}
	return proven
}
