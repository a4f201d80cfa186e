package novaconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/procfs"
)

// put writes files below a directory, by name.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func host(t *testing.T, c Conf) string {
	t.Helper()
	s, err := c.Host()
	if err != nil {
		t.Fatal(err)
	}
	return s.Value
}

const def = "[DEFAULT]\nhost = "

func TestWithoutAProcessTheFilesThatNovaComputeReadsByDefaultAreRead(t *testing.T) {
	for what, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nova.conf alone": {map[string]string{"etc/nova/nova.conf": def + "a"}, "a"},
		"nova-compute.conf comes after it": {
			map[string]string{"etc/nova/nova.conf": def + "a", "etc/nova/nova-compute.conf": def + "b"}, "b"},
		"conf.d comes after them, by name": {map[string]string{
			"etc/nova/nova.conf": def + "a", "etc/nova/nova-compute.conf": def + "b", "etc/nova/nova.conf.d/1.conf": def + "c",
			"etc/nova/nova.conf.d/2.conf": def + "d", "etc/nova/nova.conf.d/3.conf~": def + "e", "etc/nova/nova.conf.d/.9.conf": def + "f",
		}, "d"},
		"nova-compute.conf.d comes last": {map[string]string{
			"etc/nova/nova.conf.d/9.conf": def + "a", "etc/nova/nova-compute.conf.d/1.conf": def + "b"}, "b"},
		"Red Hat's comes first": {map[string]string{
			"usr/share/nova/nova-dist.conf": def + "dist", "etc/nova/nova.conf": "[DEFAULT]\n"}, "dist"},
		"Kolla's": {map[string]string{"etc/kolla/nova-compute/nova.conf": def + "k"}, "k"},
		"the host's own comes before Kolla's": {
			map[string]string{"etc/kolla/nova-compute/nova.conf": def + "k", "etc/nova/nova.conf": def + "a"}, "a"},
		"only the first directory with a name": {map[string]string{"etc/nova/nova.conf": def + "a", "etc/nova.conf": def + "b"}, "a"},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.files)
			got, notes, err := Read(t.Context(), Options{Root: root})
			if err != nil || len(notes) > 0 {
				t.Fatal(err, notes)
			}
			if host(t, got) != c.want {
				t.Errorf("host is %q of %v, want %q", host(t, got), got.Files(), c.want)
			}
		})
	}
	if _, _, err := Read(t.Context(), Options{Root: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing at all: %v", err)
	}
}

func TestANamedFileMustExistAndItsNeighboursAreRead(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"my.conf": def + "a", "nova-compute.conf": def + "b", "nova.conf.d/x.conf": "[DEFAULT]\nstate_path = /s"})
	got, _, err := Read(t.Context(), Options{Root: "/", File: filepath.Join(dir, "my.conf")})
	if err != nil {
		t.Fatal(err)
	}
	if path, err := got.InstancesPath(); err != nil || path.Value != "/s/instances" || host(t, got) != "b" {
		t.Errorf("%v: %+v, %v", got.Files(), path, err)
	}
	if _, _, err := Read(t.Context(), Options{Root: "/", File: filepath.Join(dir, "none.conf")}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestAFIFOInPlaceOfNovaConfIsAnErrorAtOnce(t *testing.T) {
	for _, name := range []string{"nova.conf", "nova-compute.conf", "nova.conf.d/x.conf"} {
		root := t.TempDir()
		put(t, root, map[string]string{"etc/nova/nova.conf.d/y.conf": "", "etc/nova/nova-compute.conf.d/y.conf": ""})
		if err := unix.Mkfifo(filepath.Join(root, "etc/nova", name), 0o644); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, _, err := Read(t.Context(), Options{Root: root})
		if err == nil || !strings.Contains(err.Error(), "regular file") || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(began))
		}
	}
}

func TestAFileWithoutAnEndIsAnError(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"etc/nova/nova.conf": ""})
	if err := os.Truncate(filepath.Join(root, "etc/nova/nova.conf"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(t.Context(), Options{Root: root}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

// compute starts a process that is called nova-compute, with these arguments, and returns a
// /proc that shows it alone, and its PID.
func compute(t *testing.T, proc, dir string, env []string, args ...string) int {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nova-compute")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho up; read x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, append(env, "PATH="+os.Getenv("PATH"))
	return started(t, proc, cmd)
}

// started starts a command that says when it runs and reads until its input ends, and adds it to proc.
func started(t *testing.T, proc string, cmd *exec.Cmd) int {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has its own name by now
		t.Fatal(err)
	}
	pid := fmt.Sprint(cmd.Process.Pid)
	if err := os.Symlink("/proc/"+pid, filepath.Join(proc, pid)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/sys", filepath.Join(proc, "sys")); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestTheRunningNovaComputeSaysWhatItReads(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"a.conf": def + "a", "b.conf": def + "b", "d/1.conf": def + "d1", "d/2.conf": def + "d2", "home/nova.conf": def + "home",
		"home/.nova/nova-compute.conf": def + "dot", "home/nova.conf.d/1.conf": def + "homed",
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	home := []string{"HOME=" + in("home")}
	for what, c := range map[string]struct {
		env, args []string
		want      string
	}{
		"one file":                                  {nil, []string{"--config-file", in("a.conf")}, "a"},
		"two files, as Debian's package does":       {nil, []string{"--config-file=" + in("a.conf"), "--config-file=" + in("b.conf")}, "b"},
		"relative to where it runs":                 {nil, []string{"--config-file", "b.conf"}, "b"},
		"a directory after a file":                  {nil, []string{"--config-file", in("a.conf"), "--config-dir", in("d")}, "d2"},
		"a file after a directory":                  {nil, []string{"--config-dir", in("d"), "--config-file", in("a.conf"), "--debug"}, "a"},
		"none: its home's":                          {home, nil, "homed"},
		"a directory alone: the default files too":  {home, []string{"--config-dir=" + in("empty")}, "dot"},
		"a file comes after the default directory":  {home, []string{"--config-file=" + in("a.conf")}, "a"},
		"the environment comes before all of these": {[]string{"OS_DEFAULT__HOST=env"}, []string{"--config-file", in("a.conf")}, "env"},
	} {
		t.Run(what, func(t *testing.T) {
			if err := os.MkdirAll(in("empty"), 0o755); err != nil {
				t.Fatal(err)
			}
			proc := t.TempDir()
			pid := compute(t, proc, dir, c.env, c.args...)
			got, notes, err := Read(t.Context(), Options{Root: t.TempDir(), Proc: proc})
			if err != nil || len(notes) > 0 {
				t.Fatal(err, notes)
			}
			s, err := got.Host()
			if err != nil || s.Value != c.want || !strings.Contains(s.Where, fmt.Sprintf("(process %d)", pid)) {
				t.Errorf("%v: %+v, %v; want %q", got.Files(), s, err, c.want)
			}
		})
	}
}

func TestOfSeveralNovaComputesThoseThatDisagreeCountForNothing(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	put(t, dir, map[string]string{"a.conf": def + "a", "b.conf": def + "b", "fake.conf": def + "fake\ncompute_driver = fake.FakeDriver\n"})
	put(t, root, map[string]string{"etc/nova/nova.conf": def + "file"})
	read := func(proc string) (Conf, []string) {
		t.Helper()
		c, notes, err := Read(t.Context(), Options{Root: root, Proc: proc})
		if err != nil {
			t.Fatal(err)
		}
		return c, notes
	}
	proc := t.TempDir()
	compute(t, proc, dir, nil, "--config-file", "a.conf")
	compute(t, proc, dir, nil, "--config-file", "a.conf")
	compute(t, proc, dir, nil, "--config-file", "fake.conf")
	if c, notes := read(proc); host(t, c) != "a" || len(notes) > 0 {
		t.Errorf("two that agree and a fake one: %v, %v", c.Files(), notes)
	}
	gone := compute(t, proc, dir, nil, "--config-file", "gone.conf")
	if c, notes := read(proc); host(t, c) != "a" || len(notes) != 1 || !strings.Contains(notes[0], fmt.Sprint(gone)) {
		t.Errorf("and one whose file is gone: %v, %v", c.Files(), notes)
	}
	compute(t, proc, dir, nil, "--config-file", "b.conf")
	c, notes := read(proc)
	if host(t, c) != "file" || !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "different") }) {
		t.Errorf("and one that disagrees: %v, %v", c.Files(), notes)
	}
}

// stranger is a user who has no part in Nova, or who is the user nova, as a test says.
const stranger = 54321

// strangers is nova-compute by name, run by that user; its file is as mode says.
func strangers(t *testing.T, proc string, mode os.FileMode, before ...string) int {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nova-compute")
	if err := os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755); err != nil { // it is made for this user alone
		t.Fatal(err)
	}
	cat, err := os.ReadFile("/bin/cat")
	if err == nil {
		err = os.WriteFile(program, cat, 0o755)
	}
	if err == nil {
		err = os.Chmod(program, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	line := append(before, program, "/proc/self/comm", "-")
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = []string{"OS_DEFAULT__HOST=stranger", "OS_DEFAULT__INSTANCES_PATH=/evil"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
	return started(t, proc, cmd)
}

func TestAProcessThatOnlyCallsItselfNovaComputeCountsForNothing(t *testing.T) {
	for what, mode := range map[string]os.FileMode{"a stranger's": 0o755, "a stranger's, with a program of root's": 0o755 | os.ModeSetuid} {
		t.Run(what, func(t *testing.T) {
			proc, root, dir := t.TempDir(), t.TempDir(), t.TempDir()
			put(t, root, map[string]string{"etc/nova/nova.conf": def + "file"})
			put(t, dir, map[string]string{"a.conf": def + "a"})
			pid := strangers(t, proc, mode)
			c, notes, err := Read(t.Context(), Options{Root: root, Proc: proc})
			if err != nil || host(t, c) != "file" || len(notes) != 1 || !strings.Contains(notes[0], fmt.Sprint(pid)) {
				t.Errorf("alone: %v, %q, %v", c.Files(), notes, err)
			}
			compute(t, proc, dir, nil, "--config-file", "a.conf")
			if c, notes, err = Read(t.Context(), Options{Root: root, Proc: proc}); err != nil || host(t, c) != "a" {
				t.Errorf("beside the true one: %v, %q, %v", c.Files(), notes, err)
			}
		})
	}
}

func TestNovaComputeIsRootsOrOfTheUserNovaOfItsOwnTree(t *testing.T) {
	novas := fmt.Sprintf("root:x:0:0::/:/bin/sh\nnova:x:%d:%d::/:/bin/sh\n", stranger, stranger)
	for what, c := range map[string]struct {
		before []string
		users  string
		want   bool
	}{
		"nova's":                         {nil, novas, true},
		"another user's":                 {nil, "nova:x:64060:64060::/:/bin/sh\n", false},
		"a tree without a nova":          {nil, "root:x:0:0::/:/bin/sh\n", false},
		"a line that is none":            {nil, "nova:x\nnova:x:y\n", false},
		"in a user namespace of its own": {[]string{"unshare", "--user"}, novas, false},
	} {
		t.Run(what, func(t *testing.T) {
			proc, dir := t.TempDir(), t.TempDir()
			put(t, dir, map[string]string{"etc/passwd": c.users})
			root, err := procfs.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			p, err := procfs.Open(proc, strangers(t, proc, 0o755, c.before...))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if got := isNovas(p, root); got != c.want {
				t.Errorf("it counts: %v", got)
			}
		})
	}
}

func TestAnotherTreesNovaComputeThatIsPassedOverIsNamed(t *testing.T) {
	conf := func(host string, here bool, reader string) Conf {
		c, err := confOf(def + host + "\n")
		if err != nil {
			t.Fatal(err)
		}
		c.here, c.reader = here, reader
		return c
	}
	mine, same, another := conf("a", true, "process 1"), conf("a", false, "process 2"), conf("b", false, "process 3")
	got, notes := preferHere([]Conf{same, another, mine})
	if len(got) != 1 || got[0].reader != mine.reader || len(notes) != 1 || !strings.Contains(notes[0], another.reader) {
		t.Errorf("%+v, %q", got, notes)
	}
	if got, notes = preferHere([]Conf{same, another}); len(got) != 2 || len(notes) > 0 {
		t.Errorf("none is here: %+v, %q", got, notes)
	}
}
