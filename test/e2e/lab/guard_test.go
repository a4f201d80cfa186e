package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// startGuard starts a guard and waits until it has looked for every file.
func startGuard(t *testing.T, l *lab.Lab, env ...string) *lab.Process {
	t.Helper()
	p := l.StartCommand(t, env, "guard", "--log-format", "json")
	t.Cleanup(func() { p.Signal(t, syscall.SIGKILL); <-p.Done() })
	patience.Wait(t, "the guard", func() bool {
		select {
		case <-p.Done():
			_, stderr := p.Output()
			t.Fatalf("the guard has ended:\n%s", stderr)
		default:
		}
		return !guarded(t, l).Scanned.IsZero()
	})
	return p
}

// guarded returns what the guard holds, by `os-rescue status`.
func guarded(t *testing.T, l *lab.Lab) guard.Status {
	t.Helper()
	var overview struct {
		Guard guard.Status `json:"guard"`
	}
	decode(t, run(t, l, 0, "status", "--output", "json").Stdout, &overview)
	return overview.Guard
}

// awaitGuard waits until the guard says so.
func awaitGuard(t *testing.T, l *lab.Lab, what string, ok func(guard.Status) bool) guard.Status {
	t.Helper()
	var s guard.Status
	defer func() {
		if t.Failed() {
			t.Logf("the guard says %s", asJSON(t, s))
		}
	}()
	patience.Wait(t, what, func() bool {
		s = guarded(t, l)
		return ok(s)
	})
	return s
}

func incidents(n int) func(guard.Status) bool {
	return func(s guard.Status) bool { return len(s.Incidents) == n }
}

// The files, the QEMU and the domain are gone: the guard has all that is needed.
func TestGuestsComeBackFromTheGuardAlone(t *testing.T) {
	l := lab.New(t, withFailpoints)
	guests := bootAll(t, l, lab.Spec{LogAppend: true, Ephemeral: true, Swap: "qcow2", ConfigDrive: true}, lab.Spec{}, lab.Spec{})
	v, stopped, off := guests[0], guests[1], guests[2]
	v.WaitBeat(t, 3)
	stopped.PowerOff(t)
	stopped.WaitGone(t)
	off.WaitBeat(t, 3)
	g := startGuard(t, l)
	sums := map[string]string{}
	for _, path := range []string{stopped.Disk, stopped.Base} {
		sums[path] = digest(t, path)
	}
	says(t, run(t, l, 0, "check", "--require-guard").Stdout, "OS-RESCUE OK", "3 instances")
	purged := time.Now()
	l.Purge(t)
	patience.Wait(t, "the check's CRITICAL", func() bool { return l.Run(t, nil, "check", "--require-guard").Code == 2 })
	t.Logf("the check was critical %s after the deletion began", time.Since(purged).Round(time.Millisecond))
	awaitGuard(t, l, "three incidents", incidents(3))
	const deleted = "files of an instance were deleted"
	patience.Wait(t, "what the guard says of them", func() bool { _, said := g.Output(); return strings.Count(said, deleted) >= 3 })
	beat := v.LastBeat()
	v.forget(t)
	off.Destroy(t)
	if got := scan(t, l)[v.UUID]; got.Verdict != recover.VerdictRecoverable || got.PID != 0 {
		t.Fatalf("scan says %s of it: %s", got.Verdict, asJSON(t, got))
	}
	ran := rescue(t, l, 0, "--all")
	for _, each := range guests {
		if got := of(t, ran, each); got.Outcome != recover.OutcomeRescued {
			t.Errorf("the report is %s", asJSON(t, got))
		}
	}
	v.isBack(t, 1)
	v.intact(t)
	v.Verify(t)
	if again := v.Boots()[1]; again.LastBeat < beat || again.Gaps != 0 {
		t.Errorf("beat %d was said before the end; on the disk are %d with %d gaps", beat, again.LastBeat, again.Gaps)
	}
	v.logHas(t, beat)
	v.holdsWhatIsPublished(t)
	off.isBack(t, 1) // it ran when its files were deleted
	if state := stopped.State(t); state != "shut off" {
		t.Errorf("the stopped guest is %s", state)
	}
	for path, want := range sums {
		if got := digest(t, path); got != want {
			t.Errorf("%s is another file", path)
		}
	}
	s := awaitGuard(t, l, "the end of the incidents", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if s.Released[keeper.ReleasedProven] == 0 {
		t.Errorf("it has released %v", s.Released)
	}
	run(t, l, 0, "check", "--require-guard")
	t.Run("nothing is left open or behind", func(t *testing.T) { nothingIsLeft(t, l) })
	t.Run("a live rescue ends the incident too", func(t *testing.T) {
		remove(t, v.Disk, off.Disk)
		awaitGuard(t, l, "the incidents", incidents(2))
		report := report(t, run(t, l, 0, "--all", "--offline", "--yes", "--mode", "live", "--output", "json"))
		if got := of(t, report, v); got.Outcome != recover.OutcomeRescued {
			t.Errorf("the report is %s", asJSON(t, got))
		}
		v.unharmed(t)
		awaitGuard(t, l, "their end", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	})
	t.Run("a domain that is removed in order is let go after the grace", func(t *testing.T) {
		g.Signal(t, syscall.SIGTERM)
		if r := g.Wait(t); r.Code != 0 {
			t.Errorf("the guard ended with %d:\n%s", r.Code, r.Stderr)
		}
		startGuard(t, l, "OS_RESCUE_GUARD_GRACE=1s")
		off.forget(t)
		remove(t, filepath.Dir(off.Disk))
		awaitGuard(t, l, "it is let go", func(s guard.Status) bool {
			return s.Released[keeper.ReleasedGrace] >= 2 && len(s.Incidents) == 0 && s.Held.DeletedFiles == 0
		})
	})
	if _, said := g.Output(); strings.Count(said, deleted) != 5 { // two more of the live rescue
		t.Errorf("the guard has said it more often than it happened:\n%s", said)
	}
}

// What a guard holds is not lost with it, also where no systemd keeps it.
func TestAGuardThatEndsInAnIncidentHandsItsFilesOver(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{})
	v.WaitBeat(t, 3)
	config := filepath.Join(t.TempDir(), "os-rescue.yaml")
	write(t, config, "guard:\n  interval: 1h\n")
	address := freeAddress(t)
	p := l.StartCommand(t, []string{"OS_RESCUE_GUARD_METRICS=" + address}, "guard", "--log-format", "json", "--config", config)
	t.Cleanup(func() { p.Signal(t, syscall.SIGKILL); <-p.Done() })
	patience.Wait(t, "the guard", func() bool { return !guarded(t, l).Scanned.IsZero() })

	first := guarded(t, l).Scanned
	write(t, config, "guard:\n  interval: 1s\n")
	p.Signal(t, syscall.SIGHUP)
	awaitGuard(t, l, "scans at the new interval", func(s guard.Status) bool { return s.Scanned.Sub(first) > 2*time.Second })
	write(t, config, "guard:\n  intervall: 1s\n")
	p.Signal(t, syscall.SIGHUP)
	patience.Wait(t, "the complaint", func() bool { _, said := p.Output(); return strings.Contains(said, "intervall") })

	held := guarded(t, l).Held.Files
	l.DeleteTree(t)
	// One deletion after the other: the incident begins with the first that it sees.
	awaitGuard(t, l, "all deletions", func(s guard.Status) bool { return len(s.Incidents) == 1 && s.Held.DeletedFiles == held })
	wanted := []string{
		`os_rescue_instances{verdict="recoverable"} 1`, `os_rescue_open_incidents{replaced="false"} 1`, "os_rescue_incidents_total 1",
	}
	patience.Wait(t, "the metrics of a scan since", func() bool {
		metrics := fetch(t, "http://"+address+"/metrics")
		return !slices.ContainsFunc(wanted, func(word string) bool { return !strings.Contains(metrics, word) })
	})
	beat := v.LastBeat()
	p.Signal(t, syscall.SIGTERM)
	if r := p.Wait(t); r.Code != 0 {
		t.Errorf("the guard ended with %d:\n%s", r.Code, r.Stderr)
	}
	if status := holdings(t, l); len(status.Holds) != held {
		t.Fatalf("the guard held %d files, the keeper holds %s", held, asJSON(t, status))
	}
	v.forget(t)
	again := startGuard(t, l)
	awaitGuard(t, l, "the incident again", incidents(1))
	rescue(t, l, 0, "--all")
	v.isBack(t, 1)
	patience.Wait(t, "the keeper has let them go", func() bool { return len(holdings(t, l).Holds) == 0 })
	if boot := v.Boots()[1]; boot.LastBeat < beat || boot.Gaps != 0 {
		t.Errorf("beat %d was said before the end; on the disk are %d with %d gaps", beat, boot.LastBeat, boot.Gaps)
	}
	again.Signal(t, syscall.SIGTERM)
	again.Wait(t)
}

// freeAddress is one of loopback, which the lab shares with the machine.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	must(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	return string(body)
}

// A hold must not keep Nova from removing an instance's directory.
func TestWhereDeletedFilesKeepAHiddenNameNothingIsHeld(t *testing.T) {
	l := lab.New(t, withFailpoints)
	_, err := lyingfs.Mount(lab.InstancesDir, t.TempDir(), lyingfs.Options{SillyRename: true})
	must(t, err)
	t.Cleanup(func() { _ = unix.Unmount(lab.InstancesDir, unix.MNT_DETACH) })
	v := boot(t, l, lab.Spec{NoAgent: true})
	v.WaitBeat(t, 2)
	startGuard(t, l)
	s := guarded(t, l)
	if s.Held.Files != 0 {
		t.Errorf("it holds %s", asJSON(t, s.Held))
	}
	says(t, strings.Join(s.Problems, "\n"), "hidden name", "noticed")
	v.Destroy(t)
	awaitGuard(t, l, "a scan", func(now guard.Status) bool { return now.Scanned.After(s.Scanned) })
	must(t, os.RemoveAll(filepath.Dir(v.Disk))) // as Nova deletes it
	if _, err := os.Stat(filepath.Dir(v.Disk)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
}

// The guard's own descriptors are no use of a file: what stands in the way is
// moved aside as without it.
func TestTheGuardDoesNotStandInTheWayOfReplaceExisting(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{})
	v.WaitBeat(t, 3)
	startGuard(t, l)
	held := guarded(t, l).Held.Files
	remove(t, v.Disk)
	awaitGuard(t, l, "the incident", incidents(1))
	write(t, v.Disk, "something else")
	awaitGuard(t, l, "the new file", func(s guard.Status) bool { return s.Held.Files == held+1 })
	if got := scan(t, l)[v.UUID]; got.Verdict != recover.VerdictConflict {
		t.Errorf("scan says %s", got.Verdict)
	}
	rescue(t, l, 1, "--all")
	v.unharmed(t)
	ran := rescue(t, l, 0, "--all", "--replace-existing")
	v.isBack(t, 1)
	kept, err := os.ReadFile(fmt.Sprintf("%s.replaced-%s", v.Disk, ran.Run))
	if err != nil || string(kept) != "something else" {
		t.Errorf("what stood there is %q: %v", kept, err)
	}
	awaitGuard(t, l, "the end", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}
