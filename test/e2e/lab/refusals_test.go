package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// One guest, which no Nova made, and whose files are gone all the time: whatever
// stops a run leaves it as it was found.
func TestWhatStopsARunLeavesTheGuestAsItWas(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true, NoMetadata: true})
	t.Run("a block job is under way", func(t *testing.T) { blockJob(t, l, v) })
	l.DeleteTree(t)

	t.Run("a job of the domain is under way", func(t *testing.T) { domainJob(t, l, v) })
	t.Run("the command line", func(t *testing.T) { usage(t, l, v) })
	t.Run("not Nova's: --all does not mean it", func(t *testing.T) {
		got := v.refused(t, "--all")
		says(t, got.Error, "no Nova metadata", "--instance "+v.UUID)
	})
	t.Run("a stale pid file", func(t *testing.T) { stalePIDFile(t, l, v) })
	t.Run("a second run", func(t *testing.T) { secondRun(t, l, v) })
	t.Run("no libvirt", func(t *testing.T) {
		l.StopLibvirtd(t)
		defer l.StartLibvirtd(t)
		for _, args := range [][]string{{"scan"}, rescueArgs("--instance", v.UUID)} {
			says(t, run(t, l, 3, args...).Stderr, "libvirt")
		}
	})
	t.Run("what the image says of itself", func(t *testing.T) { headers(t, l, v) })
	t.Run("the image is corrupt", func(t *testing.T) {
		r := at(t, l, "suspend.done", func() { setRefcount(t, v, 0) }, rescueArgs("--instance", v.UUID)...)
		setRefcount(t, v, 1)
		if r.Code != 1 {
			t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
		}
		got := of(t, report(t, r), v)
		says(t, got.Error, "corrupt", v.Disk, "Nothing was destroyed", "--mode live", "os-rescue backup")
		v.unharmed(t)
		v.nothingStaged(t)
	})
	t.Run("symlinks are not followed", func(t *testing.T) { symlinks(t, v) })
	t.Run("what can be foreseen", func(t *testing.T) { foreseen(t, l, v) })
	t.Run("something new stands at the path", func(t *testing.T) { occupied(t, l, v) })
}

// foreseen has a run meet what would stop it after the destroy, one at a time.
func foreseen(t *testing.T, l *lab.Lab, v *victim) {
	must(t, os.MkdirAll(v.Dir, 0o755))
	defer os.Remove(v.Dir)
	for _, c := range []struct {
		name     string
		do, undo func()
		says     []string
	}{
		{
			"an operator protects what is left",
			func() { tool(t, "chattr", "+i", v.Dir) },
			func() { tool(t, "chattr", "-i", v.Dir) },
			[]string{"chattr -i " + v.Dir},
		},
		{
			"virtlogd is away",
			func() { must(t, os.Rename("/run/libvirt/virtlogd-sock", "/run/libvirt/aside")) },
			func() { must(t, os.Rename("/run/libvirt/aside", "/run/libvirt/virtlogd-sock")) },
			[]string{"would not start again", "virtlogd"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.do()
			defer c.undo()
			dry := run(t, l, 0, "--instance", v.UUID, "--offline", "--dry-run")
			says(t, v.refused(t, "--instance", v.UUID).Error, c.says...)
			says(t, dry.Stdout, c.says...)
		})
	}
	t.Run("virtlogd goes away while the copy is made", func(t *testing.T) {
		away := func() { must(t, os.Rename("/run/libvirt/virtlogd-sock", "/run/libvirt/aside")) }
		r := at(t, l, "suspend.done", away, rescueArgs("--instance", v.UUID)...)
		must(t, os.Rename("/run/libvirt/aside", "/run/libvirt/virtlogd-sock"))
		says(t, of(t, report(t, r), v).Error, "would not start again", "virtlogd")
		v.unharmed(t)
		v.nothingStaged(t)
	})
}

func blockJob(t *testing.T, l *lab.Lab, v *victim) {
	mirror := filepath.Join("/var/tmp", "mirror-"+v.Name)
	l.Virsh(t, "blockcopy", v.Name, "vda", "--dest", mirror, "--format", "raw", "--transient-job")
	remove(t, v.Base)
	says(t, v.refused(t, "--instance", v.UUID).Error, "block job", "vda")
	l.Virsh(t, "blockjob", v.Name, "vda", "--abort")
	remove(t, mirror)
}

// domainJob has libvirt dump the guest's memory into a pipe that nobody reads.
func domainJob(t *testing.T, l *lab.Lab, v *victim) {
	path := filepath.Join("/var/tmp", "dump-"+v.Name)
	must(t, syscall.Mkfifo(path, 0o666))
	defer os.Remove(path)
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer pipe.Close()
	dump := exec.Command("virsh", "--connect", "qemu:///system", "dump", "--live", "--memory-only", v.Name, path)
	must(t, dump.Start())
	patience.Wait(t, "the dump", func() bool {
		out, err := lookVirsh(t, "domjobinfo", v.Name)
		return err == nil && strings.Contains(out, "Dump")
	})
	got := of(t, rescue(t, l, 1, "--instance", v.UUID), v)
	if got.Outcome != recover.OutcomeSkipped || len(got.Steps) > 0 {
		t.Errorf("%s", asJSON(t, got))
	}
	says(t, got.Error, "job", "dump")
	go func() { _, _ = io.Copy(io.Discard, pipe) }() // ends with the pipe
	must(t, dump.Wait())
	v.unharmed(t)
}

func usage(t *testing.T, l *lab.Lab, v *victim) {
	selectors := []string{"--instance", v.UUID, "--offline"}
	dir := t.TempDir()
	unknown, broken := filepath.Join(dir, "unknown.yaml"), filepath.Join(dir, "broken.yaml")
	write(t, unknown, "paralel: 3\n")
	write(t, broken, "owners: [\n")
	before := [2]map[string]string{listing(t, stateDir), listing(t, lab.NovaDir)}
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{append([]string{"--config", unknown, "--yes"}, selectors...), []string{"paralel", "parallel", unknown}},
		{append([]string{"--config", broken, "--yes"}, selectors...), []string{broken}},
		{append([]string{"--config", dir, "--yes"}, selectors...), []string{dir}},
		{[]string{"--offline", "--yes"}, []string{"--project", "--instance", "--all"}},
		{selectors, []string{"--yes", "Nothing was changed"}},
	} {
		says(t, run(t, l, 2, c.args...).Stderr, c.words...)
	}
	// Not root: another user runs the same binary.
	cmd := exec.Command(l.Binary(t), "scan")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("as nobody it ends with %v:\n%s", err, out)
	}
	says(t, string(out), "root")
	says(t, run(t, l, 0, append(selectors, "--dry-run")...).Stdout, v.Name, "destroy the domain", v.Disk)

	after := [2]map[string]string{listing(t, stateDir), listing(t, lab.NovaDir)}
	if diff := cmp.Diff(journals(before[0]), journals(after[0])); diff != "" || !cmp.Equal(before[1], after[1]) {
		t.Errorf("something was touched:\n%s\n%s", diff, cmp.Diff(before[1], after[1]))
	}
	v.unharmed(t)
}

// journals are the names of the runs that there were.
func journals(listing map[string]string) []string {
	var runs []string
	for _, name := range names(listing) {
		if strings.HasPrefix(name, stateDir+"/runs/") {
			runs = append(runs, name)
		}
	}
	return runs
}

func stalePIDFile(t *testing.T, l *lab.Lab, v *victim) {
	path := "/run/libvirt/qemu/" + v.Name + ".pid"
	body, err := os.ReadFile(path)
	must(t, err)
	dead := exec.Command("true")
	must(t, dead.Run())
	for _, pid := range []int{os.Getpid(), dead.Process.Pid} {
		write(t, path, strconv.Itoa(pid))
		var scanned recover.Report
		decode(t, run(t, l, 1, "scan", "--output", "json").Stdout, &scanned)
		if i := scanned.Instances[0]; i.Verdict != recover.VerdictUnknown || len(i.Reasons) == 0 {
			t.Errorf("with the pid %d scan says %s: %v", pid, i.Verdict, i.Reasons)
		}
		got := of(t, rescue(t, l, 1, "--instance", v.UUID), v)
		if got.Outcome != recover.OutcomeSkipped {
			t.Errorf("%s", asJSON(t, got))
		}
		says(t, got.Error, strconv.Itoa(pid), "libvirtd")
	}
	must(t, os.WriteFile(path, body, 0o644))
	v.unharmed(t)
}

func secondRun(t *testing.T, l *lab.Lab, v *victim) {
	// The first run is stopped by the second one's having ended, and then by Ctrl-C.
	first := ""
	r := at(t, l, "plan.done", func() {
		var overview struct{ Runs []recover.RunStatus }
		decode(t, run(t, l, 0, "status", "--output", "json").Stdout, &overview)
		if len(overview.Runs) == 0 || overview.Runs[0].State != recover.RunRunning {
			t.Fatalf("status says %s", asJSON(t, overview))
		}
		first = overview.Runs[0].Run
		says(t, run(t, l, 3, rescueArgs("--instance", v.UUID)...).Stderr, first, "under way", strconv.Itoa(overview.Runs[0].PID))
		// One with another state directory, in a container that sees another /run/os-rescue and the same tree.
		const hidden = "mount -t tmpfs none /run/os-rescue && exec \"$@\""
		line := append([]string{"-m", "sh", "-c", hidden, "sh", l.Binary(t)}, rescueArgs("--instance", v.UUID)...)
		other := lab.StartProcess(t, "/", []string{"OS_RESCUE_STATE_DIR=" + filepath.Join(t.TempDir(), "state")}, "unshare", line...).Wait(t)
		if other.Code != 3 {
			t.Errorf("with another state directory: exit code %d\n%s", other.Code, other.Stdout)
		}
		says(t, other.Stderr, first, "has the instances directory "+lab.InstancesDir, "OS_RESCUE_STATE_DIR="+stateDir+" os-rescue status "+first)
		must(t, syscall.Kill(overview.Runs[0].PID, syscall.SIGINT))
	}, rescueArgs("--instance", v.UUID)...)
	if r.Code != 130 {
		t.Errorf("the first run: exit code %d, want 130\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	v.unharmed(t)
}

// patch writes into an image as its guest's side could, and returns what undoes it.
func patch(t *testing.T, path string, offset int64, content []byte) func() {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
	must(t, err)
	defer f.Close()
	old := make([]byte, len(content))
	_, err = f.ReadAt(old, offset)
	must(t, err)
	_, err = f.WriteAt(content, offset)
	must(t, err)
	return func() { patch(t, path, offset, old) }
}

// The fields of a qcow2 header, from QEMU's docs/interop/qcow2.txt.
const (
	headerBackingOffset = 8
	headerRefcountTable = 48
	headerIncompatible  = 72
)

func number(t *testing.T, path string, offset int64) int64 {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	b := make([]byte, 8)
	_, err = f.ReadAt(b, offset)
	must(t, err)
	return int64(binary.BigEndian.Uint64(b))
}

func headers(t *testing.T, l *lab.Lab, v *victim) {
	image := v.held(t, v.Disk)
	t.Run("another backing file", func(t *testing.T) {
		shadow := "/etc/shadow"
		name := append([]byte(shadow), bytes.Repeat([]byte("/"), len(v.Base)-len(shadow))...)
		defer patch(t, image, number(t, image, headerBackingOffset), name)()
		says(t, v.refused(t, "--instance", v.UUID).Error, shadow, v.Base)
	})
	t.Run("an external data file", func(t *testing.T) {
		bits := binary.BigEndian.AppendUint64(nil, uint64(number(t, image, headerIncompatible)|4))
		defer patch(t, image, headerIncompatible, bits)()
		says(t, v.refused(t, "--instance", v.UUID).Error, "external data file")
	})
}

// setRefcount sets the reference count of the image's first cluster: 1 is right,
// 0 a corruption, 2 a leak.
func setRefcount(t *testing.T, v *victim, n uint16) {
	t.Helper()
	image := v.held(t, v.Disk)
	block := number(t, image, number(t, image, headerRefcountTable))
	patch(t, image, block, binary.BigEndian.AppendUint16(nil, n))
}

// symlinks are planted by the nova user, who owns the tree: to another file
// system, and to somewhere on the same one.
func symlinks(t *testing.T, v *victim) {
	elsewhere, beside := filepath.Join(os.TempDir(), "elsewhere"), filepath.Join(lab.NovaDir, "beside")
	nova, err := ground.UserID("nova")
	must(t, err)
	for _, outside := range []string{elsewhere, beside} {
		t.Cleanup(func() { _ = os.RemoveAll(outside) })
		write(t, filepath.Join(outside, "disk"), "precious")
	}
	for _, c := range []struct{ path, target string }{
		{v.Disk, filepath.Join(elsewhere, "disk")},
		{v.Disk, filepath.Join(beside, "disk")},
		{v.Disk, filepath.Join(beside, "nothing")},
		{v.Dir, elsewhere},
		{v.Dir, beside},
		{lab.BaseDir, beside},
	} {
		t.Run(filepath.Base(c.path)+" to "+c.target, func(t *testing.T) {
			before := [2]map[string]string{listing(t, elsewhere), listing(t, beside)}
			must(t, os.MkdirAll(filepath.Dir(c.path), 0o755))
			remove(t, c.path)
			must(t, os.Symlink(c.target, c.path))
			must(t, os.Lchown(c.path, nova, nova))
			says(t, v.refused(t, "--instance", v.UUID, "--replace-existing").Error, c.path, "symlink")
			if diff := cmp.Diff(before, [2]map[string]string{listing(t, elsewhere), listing(t, beside)}); diff != "" {
				t.Errorf("what symlinks lead to was touched:\n%s", diff)
			}
			if got, err := os.Readlink(c.path); err != nil || got != c.target {
				t.Errorf("the symlink was touched: %s, %v", got, err)
			}
			remove(t, c.path)
		})
	}
}

func occupied(t *testing.T, l *lab.Lab, v *victim) {
	old := strconv.FormatUint(v.OpenFiles(t)[v.Disk].Inode, 10)
	info, err := os.Stat(v.held(t, v.Disk))
	must(t, err)
	for name, size := range map[string]int64{"by a small file": 4, "by one of the same size": info.Size()} {
		t.Run(name, func(t *testing.T) {
			write(t, v.Disk, "new!")
			must(t, os.Truncate(v.Disk, size))
			inode := inodeOf(t, v.Disk)
			got := of(t, rescue(t, l, 1, "--instance", v.UUID), v)
			says(t, got.Error, v.Disk, strconv.FormatUint(inode, 10), old, "--replace-existing")
			if got.Outcome != recover.OutcomeSkipped || inodeOf(t, v.Disk) != inode {
				t.Errorf("%s", asJSON(t, got))
			}
			v.unharmed(t)
			v.nothingStaged(t)
		})
	}
	t.Run("and somebody uses it", func(t *testing.T) {
		f, err := os.Open(v.Disk)
		must(t, err)
		defer f.Close()
		got := of(t, rescue(t, l, 1, "--instance", v.UUID, "--replace-existing"), v)
		says(t, got.Error, "in use", v.Disk)
		v.unharmed(t)
	})
	t.Run("it is moved aside where that is asked for, and an identical base is kept", func(t *testing.T) {
		remove(t, v.Base)
		must(t, os.MkdirAll(lab.BaseDir, 0o755))
		out, err := exec.Command("cp", "--sparse=always", v.held(t, v.Base), v.Base).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		base, disk := inodeOf(t, v.Base), inodeOf(t, v.Disk)
		// A leak does no harm: the run goes on.
		r := at(t, l, "suspend.done", func() { setRefcount(t, v, 2) }, rescueArgs("--instance", v.UUID, "--replace-existing")...)
		if r.Code != 0 {
			t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
		}
		ran := report(t, r)
		v.isBack(t, 1)
		v.intact(t)
		aside := v.Disk + ".replaced-" + ran.Run
		if !exists(aside) || inodeOf(t, aside) != disk {
			t.Errorf("what stood there is not %s: %v", aside, of(t, ran, v).Notes)
		}
		if inodeOf(t, v.Base) != base {
			t.Error("the identical backing file was replaced")
		}
	})
	t.Run("with the same content, it is kept", func(t *testing.T) {
		l.DeleteTree(t)
		var inode uint64
		r := at(t, l, "suspend.done", func() {
			must(t, os.MkdirAll(v.Dir, 0o755))
			out, err := exec.Command("cp", "--sparse=always", v.held(t, v.Disk), v.Disk).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			inode = inodeOf(t, v.Disk)
		}, rescueArgs("--instance", v.UUID)...)
		if r.Code != 0 {
			t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
		}
		says(t, strings.Join(of(t, report(t, r), v).Notes, "\n"), v.Disk, "kept")
		v.isBack(t, 1)
		v.intact(t)
		if inodeOf(t, v.Disk) != inode {
			t.Error("it was not kept")
		}
	})
}
