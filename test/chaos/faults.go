package chaos

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab"
)

// fault is a kind of fault.
type fault struct {
	name   string
	weight int // how often it comes, against the others
	// strike injects it. pick chooses among its possibilities.
	strike func(ctx context.Context, w *world, pick int) error
}

// errNothing is returned by a fault for which there is nothing to strike.
var errNothing = errors.New("there is nothing to strike")

// faults returns every kind of fault.
func faults() []fault {
	return []fault{
		{"kill-run", 4, func(_ context.Context, w *world, _ int) error { return send(unix.SIGKILL, w.command.PID()) }},
		{"kill-keeper", 3, killing("keeper")},
		{"kill-witness", 2, killing("undo")},
		{"kill-guard", 2, killing("guard")},
		{"kill-libvirtd", 2, killing("libvirtd")},
		{"kill-virtlogd", 2, killing("virtlogd")},
		{"kill-qemu", 3, killing("qemu")},
		{"stop-run", 1, stopping("run")},
		{"stop-keeper", 1, stopping("keeper")},
		{"stop-witness", 1, stopping("undo")},
		{"stop-guard", 1, stopping("guard")},
		{"stop-libvirtd", 1, stopping("libvirtd")},
		{"stop-virtlogd", 1, stopping("virtlogd")},
		{"stop-qemu", 1, stopping("qemu")},
		{"full-state", 2, func(_ context.Context, w *world, _ int) error { return fill(w, bare.StateDir) }},
		{"full-target", 2, func(_ context.Context, w *world, _ int) error { return fill(w, lab.NovaDir) }},
		{"eio-state", 2, func(ctx context.Context, w *world, _ int) error { return fail(ctx, w, "write,fsync,fdatasync") }},
		{"eio-target", 2, func(ctx context.Context, w *world, _ int) error {
			return fail(ctx, w, "pwrite64,copy_file_range,fallocate")
		}},
		{"somebody-resumes", 2, somebody("resume")},
		{"somebody-destroys", 2, somebody("destroy")},
		{"somebody-starts", 1, somebody("start")},
		{"somebody-migrates", 1, func(ctx context.Context, w *world, pick int) error {
			_, _ = w.virsh(ctx, "migrate", "--live", w.guests[pick%len(w.guests)].name, "qemu+unix:///system")
			return nil
		}},
		{"host-reboots", 2, func(_ context.Context, w *world, _ int) error { return reboot(w) }},
		{"tears-journal", 2, tearJournal},
		{"flips-journal", 2, flipJournal},
	}
}

// faultNamed returns a kind of fault by its name.
func faultNamed(name string) (fault, bool) {
	all := faults()
	n := slices.IndexFunc(all, func(f fault) bool { return f.name == name })
	if n < 0 {
		return fault{}, false
	}
	return all[n], true
}

// pids returns the processes of a role: run, keeper, undo, guard, qemu, libvirtd, virtlogd.
func pids(w *world, role string) []int {
	var found []int
	for pid, program := range bare.Processes() {
		switch role {
		case "libvirtd", "virtlogd":
			if program == role {
				found = append(found, pid)
			}
		case "qemu":
			if strings.HasPrefix(program, "qemu-system-") && isGuest(pid) {
				found = append(found, pid)
			}
		case "run":
			if pid == w.command.PID() {
				found = append(found, pid)
			}
		default:
			if program == filepath.Base(w.binary) && slices.Contains(commandLine(pid), role) {
				found = append(found, pid)
			}
		}
	}
	slices.Sort(found)
	return found
}

func commandLine(pid int) []string {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil // it has ended
	}
	return strings.Split(string(body), "\x00")
}

// isGuest is false for the QEMUs that libvirtd asks what they can do.
func isGuest(pid int) bool { return slices.Contains(commandLine(pid), "-uuid") }

// send sends a signal to processes; those that it kills have ended when it returns.
func send(signal syscall.Signal, pids ...int) error {
	if len(pids) == 0 {
		return errNothing
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, signal); err != nil {
			return errNothing // it has ended
		}
	}
	if signal != unix.SIGKILL {
		return nil
	}
	for range 500 {
		if !slices.ContainsFunc(pids, alive) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%v: killed, and still there", pids)
}

// alive is false for a process that has ended, be it that nobody has waited for it yet.
func alive(pid int) bool {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	return !bytes.Contains(body, []byte(") Z "))
}

func killing(role string) func(context.Context, *world, int) error {
	return func(_ context.Context, w *world, pick int) error {
		found := pids(w, role)
		if len(found) > 1 && role == "qemu" {
			found = []int{found[pick%len(found)]}
		}
		return send(unix.SIGKILL, found...)
	}
}

// stopping stops processes for a while; meanwhile the run goes on.
func stopping(role string) func(context.Context, *world, int) error {
	return func(_ context.Context, w *world, pick int) error {
		found := pids(w, role)
		if err := send(unix.SIGSTOP, found...); err != nil {
			return err
		}
		w.later(time.Duration(300+pick%700)*time.Millisecond, func() { _ = send(unix.SIGCONT, found...) })
		return nil
	}
}

// fill leaves no room on a file system.
func fill(w *world, dir string) error {
	path := filepath.Join(dir, ".filler")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w.after(func() { _ = os.Remove(path) })
	for at, size := int64(0), int64(1<<30); size >= 512; {
		switch err := unix.Fallocate(int(f.Fd()), 0, at, size); {
		case err == nil:
			at += size
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		default:
			return err
		}
	}
	return nil
}

// fail has system calls of the command fail with EIO, until the trial's faults end.
func fail(ctx context.Context, w *world, calls string) error {
	pid := fmt.Sprint(w.command.PID())
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qq", "-o", "/dev/null", "-p", pid,
		"-e", "trace="+calls, "-e", "inject="+calls+":error=EIO")
	if err := cmd.Start(); err != nil {
		return err
	}
	w.after(func() { _ = cmd.Process.Signal(unix.SIGTERM); _ = cmd.Wait() })
	for range 500 {
		body, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			return errNothing
		}
		if !bytes.Contains(body, []byte("TracerPid:\t0\n")) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("strace does not attach")
}

// somebody has an operator do something with virsh.
func somebody(command string) func(context.Context, *world, int) error {
	return func(ctx context.Context, w *world, pick int) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, _ = w.virsh(ctx, command, w.guests[pick%len(w.guests)].name) // it may be refused
		return nil
	}
}

const bootID = "/proc/sys/kernel/random/boot_id"

// reboot ends all processes at once, and begins another boot.
func reboot(w *world) error {
	for _, role := range []string{"run", "undo", "guard", "keeper", "qemu", "libvirtd", "virtlogd"} {
		for _, pid := range pids(w, role) {
			if err := send(unix.SIGKILL, pid); err != nil && !errors.Is(err, errNothing) {
				return err
			}
		}
	}
	// It is in memory.
	if err := ground.EmptyDir("/run/libvirt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	path := filepath.Join(ground.ScratchDir, "boot_id")
	text := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(path, bootID, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	w.after(func() { _ = unix.Unmount(bootID, unix.MNT_DETACH) })
	return nil
}

// newestJournal returns the path of the journal of the newest run.
func newestJournal() (string, error) {
	all, err := filepath.Glob(bare.StateDir + "/runs/*/journal.jsonl")
	if err == nil && len(all) == 0 {
		err = errNothing
	}
	if err != nil {
		return "", err
	}
	return slices.Max(all), nil
}

// deadJournal kills the run, and returns the path and the content of its journal.
func deadJournal(w *world) (path string, body []byte, err error) {
	path, err = newestJournal()
	if err == nil {
		err = send(unix.SIGKILL, w.command.PID())
	}
	if err == nil {
		body, err = os.ReadFile(path)
	}
	return path, body, err
}

// tearJournal kills the run, and takes the end of its journal's last line.
func tearJournal(_ context.Context, w *world, pick int) error {
	path, body, err := deadJournal(w)
	if err != nil {
		return err
	}
	last := bytes.LastIndexByte(bytes.TrimSuffix(body, []byte("\n")), '\n') + 1
	if last >= len(body) {
		return errNothing
	}
	return os.Truncate(path, int64(last+pick%(len(body)-last)))
}

// flipJournal kills the run, and turns one bit of its journal over.
func flipJournal(_ context.Context, w *world, pick int) error {
	path, body, err := deadJournal(w)
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return errNothing
	}
	body[(pick/8)%len(body)] ^= 1 << (pick % 8)
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return err
	}
	// A bit of the first checksum's name makes of the record one of a release without checksums.
	if _, err := journal.Read(filepath.Dir(path)); err != nil || pick/8%len(body) > bytes.IndexByte(body, '\n') {
		w.flipped = filepath.Base(filepath.Dir(path))
	}
	return nil
}
