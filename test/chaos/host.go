package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// host is the lab that all trials share, one after the other.
type host struct {
	t      *testing.T
	lab    *lab.Lab
	binary string
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, lab: lab.New(t, lab.Options{Size: 256 << 20, BuildFlags: []string{"-tags=failpoint"}})}
	h.binary = h.lab.Binary(t)
	// A state directory that can be full.
	if err := unix.Mount("", bare.StateDir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, "size=8m"); err != nil {
		t.Fatal(err)
	}
	if err := bare.MakeSocketDir(); err != nil {
		t.Fatal(err)
	}
	return h
}

// connect connects to libvirt. A connection does not outlive the libvirtd that it was made to.
func (h *host) connect() *libvirt.Connect {
	h.t.Helper()
	c, err := libvirt.NewConnect("qemu:///system")
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// world is the host in one trial.
type world struct {
	*host
	script  script
	guests  []*guest
	guard   *lab.Process // nil when none is to run
	command *lab.Process // what is struck

	said     strings.Builder            // all that os-rescue has said
	reports  []recover.RunReport        // of all its runs
	verdicts map[string]recover.Verdict // by UUID, when last scanned
	reasons  map[string][]string        // of these
	log      []string                   // what happened, for a person
	injected map[string]int             // strikes that came about, by fault and point
	flipped  string                     // the run whose journal was damaged by a flipped bit, until it is abandoned

	mu      sync.Mutex
	undo    []func() // what ends the faults
	waiting sync.WaitGroup
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// after has a function called when the faults end.
func (w *world) after(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.undo = append(w.undo, f)
}

// later calls a function after a while; the faults have not ended before.
func (w *world) later(d time.Duration, f func()) {
	w.waiting.Add(1)
	time.AfterFunc(d, func() { defer w.waiting.Done(); f() })
}

// heal ends the faults: what was killed is started again as systemd would, what was full
// has room.
func (w *world) heal() {
	w.t.Helper()
	w.waiting.Wait()
	w.mu.Lock()
	undo := w.undo
	w.undo = nil
	w.mu.Unlock()
	for n := range undo {
		undo[len(undo)-1-n]()
	}
	w.lab.StartDaemons(w.t)
	if w.guard != nil && ended(w.guard) {
		w.startGuard()
	}
}

// environment has the guard look often.
func environment() []string { return []string{"OS_RESCUE_GUARD_INTERVAL=1s", "NO_COLOR=1"} }

// startGuard starts the guard, and waits until it holds everything.
func (w *world) startGuard() {
	w.t.Helper()
	w.guard = w.lab.StartCommand(w.t, environment(), "guard")
	patience.Wait(w.t, "the guard's first scan", func() bool {
		if ended(w.guard) {
			return true
		}
		var overview struct {
			Guard struct {
				Scanned time.Time `json:"scanned"`
			} `json:"guard"`
		}
		r := w.lab.Run(w.t, environment(), "status", "--output", "json")
		return json.Unmarshal([]byte(r.Stdout), &overview) == nil && !overview.Guard.Scanned.IsZero()
	})
}

// ended is true when a process has ended.
func ended(p *lab.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// virsh runs virsh as an operator does.
func (w *world) virsh(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	w.note("virsh %s: %s%v", strings.Join(args, " "), strings.TrimSpace(string(out)), err)
	return strings.TrimSpace(string(out)), err
}

// limit is for a command of os-rescue that may meet faults.
func limit() time.Duration { return patience.Of(90 * time.Second) }

// errHangs is of a command that does not end.
var errHangs = errors.New("it does not end")

// osRescue runs os-rescue to its end, and keeps what it says.
func (w *world) osRescue(args ...string) (lab.Result, error) {
	w.t.Helper()
	p := w.lab.StartCommand(w.t, environment(), args...)
	select {
	case <-p.Done():
	case <-time.After(limit()):
		p.Signal(w.t, unix.SIGKILL)
		<-p.Done()
		return lab.Result{}, fmt.Errorf("os-rescue %s: %w", strings.Join(args, " "), errHangs)
	}
	return w.keep(p.Wait(w.t), args), nil
}

// keep keeps what os-rescue has said.
func (w *world) keep(r lab.Result, args []string) lab.Result {
	w.said.WriteString(r.Stdout + r.Stderr)
	if args[0] == "status" || args[0] == "scan" {
		return r
	}
	text := ""
	for decoder := json.NewDecoder(strings.NewReader(r.Stdout)); ; {
		var report recover.RunReport
		if err := decoder.Decode(&report); err != nil {
			if !errors.Is(err, io.EOF) {
				text += "; no report"
			}
			break
		}
		w.reports = append(w.reports, report)
		for _, i := range report.Instances {
			text += fmt.Sprintf("; %s %s %s", i.Domain, i.Outcome, i.Error)
		}
	}
	if lines := strings.Split(strings.TrimSpace(r.Stderr), "\n"); r.Code != 0 && len(w.reports) == 0 {
		text += "; " + lines[len(lines)-1]
	}
	w.note("os-rescue %s: exit code %d%s", strings.Join(args, " "), r.Code, text)
	return r
}
