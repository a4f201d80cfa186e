package procfs

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

func TestStartTicksSurviveAnyCommandName(t *testing.T) {
	for name, c := range map[string]struct {
		stat string
		want uint64
		ok   bool
	}{
		"ordinary":                {"7 (bash) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9", 4711, true},
		"parentheses and spaces":  {"7 (a) 1 2 (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9", 4711, true},
		"too short":               {"7 (bash) S 1", 0, false},
		"no command name":         {"7 bash S 1", 0, false},
		"start time not a number": {"7 (bash) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 x 9 9", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStartTicks([]byte(c.stat))
			if (err == nil) != c.ok || got != c.want {
				t.Errorf("parseStartTicks = %d, %v; want %d, ok %v", got, err, c.want, c.ok)
			}
		})
	}
}

func TestOpenFlagsAreReadInOctal(t *testing.T) {
	flags, err := identity.OpenFlags([]byte("pos:\t0\nflags:\t02140002\nmnt_id:\t25\n"))
	if err != nil || flags&unix.O_DIRECT == 0 || flags&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("OpenFlags = %#o, %v; want O_RDWR with O_DIRECT", flags, err)
	}
	if _, err := identity.OpenFlags([]byte("pos:\t0\n")); err == nil {
		t.Error("a fdinfo without flags was accepted")
	}
}

func TestTheDeletedSuffixIsStrippedFirstOnlyWhereNoNameIsLeft(t *testing.T) {
	for link, want := range map[string][2]string{
		"/i/disk":           {"/i/disk", "/i/disk"},
		"/i/disk (deleted)": {"/i/disk", "/i/disk (deleted)"},
	} {
		if got := PathsOf(link, true)[0]; got != want[0] {
			t.Errorf("heldPaths(%q, unlinked) = %q, want %q", link, got, want[0])
		}
		if got := PathsOf(link, false)[0]; got != want[1] {
			t.Errorf("heldPaths(%q, linked) = %q, want %q", link, got, want[1])
		}
	}
}

// The fact that everything rests on: the kernel's suffix is display only, the
// link count tells, and the inode can be opened again through /proc.
func TestADeletedFileIsSeenByItsLinkCountAndReadThroughProc(t *testing.T) {
	dir := t.TempDir()
	honest, liar := filepath.Join(dir, "disk"), filepath.Join(dir, "disk (deleted)")
	for _, p := range []string{honest, liar} {
		if err := os.WriteFile(p, []byte(p), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-c", `exec 3<"$0" 4<"$1"; echo ready; cat`, honest, liar)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	bufio.NewReader(out).ReadString('\n')
	os.Remove(honest)

	p, err := Open("/proc", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	list, err := (&listing{p: p}).list(t.Context(), silence)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]Descriptor{}
	for _, d := range list {
		seen[d.FD] = d
	}
	if d := seen[3]; !d.Unlinked() || PathsOf(d.Link, true)[0] != honest {
		t.Errorf("the deleted file is seen as %q with %d links", d.Link, d.Stat.Nlink)
	}
	if d := seen[4]; d.Unlinked() || PathsOf(d.Link, false)[0] != liar {
		t.Errorf("the file called %q is seen as %q with %d links", liar, d.Link, d.Stat.Nlink)
	}
	if data, err := os.ReadFile(p.path("fd", "3")); err != nil || string(data) != honest {
		t.Errorf("the deleted inode reads %q, %v", data, err)
	}
}

func TestAFileThatIsOpenAsAPathOnlyIsNoOpenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, flags := range []int{unix.O_PATH, unix.O_RDONLY} {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	os.Remove(path)
	held, err := HeldBy(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	has := func(fd int) bool {
		return slices.ContainsFunc(held, func(h HeldFile) bool { return h.FD == fd })
	}
	if has(fds[0]) || !has(fds[1]) {
		t.Errorf("of the descriptors %v, the first of which is a path only, these are open files: %v", fds, held)
	}
}

func TestAProcessThatIsNotTheDomainsQEMUIsRefused(t *testing.T) {
	const uuid = "0b8b7d5e-3a51-4a1c-a0b5-9f4f3a6f1c11"
	cmd := exec.Command("sh", "-c", "echo ready; cat", "-uuid", strings.ToUpper(uuid))
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(out).ReadString('\n')
	p, err := Open("/proc", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.CheckQEMU(uuid); err != nil {
		t.Errorf("the right process is refused: %v", err)
	}
	if err := p.CheckQEMU(strings.Replace(uuid, "0b", "0c", 1)); err == nil {
		t.Error("another domain's process is accepted")
	}
	own := exec.Command("unshare", "--user", "--map-root-user", "sh", "-c", "echo ready; cat", "-uuid", uuid)
	ownIn, _ := own.StdinPipe()
	ownOut, _ := own.StdoutPipe()
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(ownOut).ReadString('\n')
	if p, err := Open("/proc", own.Process.Pid); err != nil || p.CheckQEMU(uuid) == nil {
		t.Errorf("a process in a user namespace of its own is accepted: %v", err)
	}
	ownIn.Close()
	own.Wait()
	in.Close()
	cmd.Wait()
	if err := p.Alive(); err == nil {
		t.Error("an ended process is taken for alive")
	}
}

func TestALookupStaysBelowItsRoot(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "etc"), 0o755)
	os.WriteFile(filepath.Join(dir, "etc/inside"), nil, 0o600)
	os.Symlink("/etc", filepath.Join(dir, "link"))
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Stat("/link/inside"); err != nil {
		t.Errorf("an absolute link is not resolved inside the root: %v", err)
	}
	if _, err := r.Stat("/link/passwd"); err == nil {
		t.Error("a link led out of the root")
	}
	if got, _, err := r.Ancestor("/etc/a/b/c"); err != nil || got != "/etc" {
		t.Errorf("Ancestor = %q, %v", got, err)
	}
}

func FuzzProcParsersNeverPanic(f *testing.F) {
	f.Add([]byte("7 (bash) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9"))
	f.Add([]byte("flags:\t02140002\n"))
	f.Add([]byte("/var/lib/nova/instances/x/disk (deleted)"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseStartTicks(data)
		_, _ = identity.OpenFlags(data)
		for _, unlinked := range []bool{true, false} {
			for _, p := range PathsOf(string(data), unlinked) {
				if !strings.HasPrefix(string(data), p) {
					t.Fatalf("%q is no prefix of %q", p, data)
				}
			}
		}
	})
}

// Anybody can have tens of thousands of descriptors that are no files: they are not looked at.
func TestWhatIsNoFileIsToldByItsLink(t *testing.T) {
	for link, want := range map[string]bool{
		"socket:[4711]": true, "pipe:[1]": true, "anon_inode:[eventpoll]": true, "anon_inode:inotify": true,
		"/var/lib/nova/instances/u/disk": false, "/socket:[4711]": false, "/memfd:x (deleted)": false, "": false,
	} {
		if got := isNoFile(link); got != want {
			t.Errorf("%q: %v", link, got)
		}
	}
}
