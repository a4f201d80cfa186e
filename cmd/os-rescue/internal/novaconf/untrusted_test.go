package novaconf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Nova's user can run anything by the name nova-compute.
func TestAProcessOfNovasNamesOnlyFilesOfRootsOrTheStandardOnes(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"etc/nova/nova.conf": def + "a", "srv/root/a.conf": def + "b", "srv/nova/a.conf": def + "c",
		"srv/root/theirs.conf": def + "d", "srv/root/all.conf": def + "e", "srv/dir/a.conf": def + "f", "srv/mixed/a.conf": def + "g"})
	in := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.Chown(in("etc/nova"), stranger, stranger), os.Chown(in("etc/nova/nova.conf"), stranger, stranger),
		os.Chown(in("srv/nova"), stranger, stranger), os.Chown(in("srv/root/theirs.conf"), stranger, stranger),
		os.Chown(in("srv/mixed/a.conf"), stranger, stranger), os.Chmod(in("srv/root/all.conf"), 0o666),
		os.Symlink("/srv/nova/a.conf", in("srv/root/link.conf")), os.Symlink("a.conf", in("srv/root/own.conf")))
	if err != nil {
		t.Fatal(err)
	}
	root, err := procfs.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for arg, want := range map[string]error{
		"--config-file=/etc/nova/nova.conf":      nil, // as packages leave it
		"--config-file=/srv/root/a.conf":         nil,
		"--config-file=/srv/root/own.conf":       nil,
		"--config-dir=/srv/dir":                  nil,
		"--config-file=/srv/nova/a.conf":         plainfile.ErrNotOurs,
		"--config-file=/srv/root/theirs.conf":    plainfile.ErrNotOurs,
		"--config-file=/srv/root/all.conf":       plainfile.ErrNotOurs,
		"--config-file=/srv/root/link.conf":      plainfile.ErrNotOurs,
		"--config-dir=/srv/mixed":                plainfile.ErrNotOurs,
		"--config-file=/etc/nova/../../srv/nova": plainfile.ErrNotOurs,
	} {
		given, _, _ := named([]string{arg}, "/")
		if err := mayName(root, given); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", arg, err, want)
		}
	}
	for file, want := range map[string]bool{"/etc/nova/nova.conf": true, "/srv/root/a.conf": false, "/srv/root/link.conf": true} {
		c := Conf{values: map[name]Setting{}}
		if err := c.readFile(root, file); err != nil || c.IsNovas() != want {
			t.Errorf("%s is Nova's: %v, %v", file, c.IsNovas(), err)
		}
	}
}

// Its tree, its command line and its environment can be such that they never end: nothing of a process in
// another user namespace is opened.
func TestNothingIsReadOfAProcessInAUserNamespaceOfItsOwn(t *testing.T) {
	all := t.TempDir()
	pid := strangers(t, all, 0o755, "unshare", "--user")
	proc := t.TempDir()
	at := filepath.Join(proc, fmt.Sprint(pid))
	if err := errors.Join(os.Mkdir(at, 0o755), os.Symlink("/proc/sys", filepath.Join(proc, "sys"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stat", "comm", "status", "ns"} { // neither root nor cmdline nor environ
		if err := os.Symlink(fmt.Sprintf("/proc/%d/%s", pid, name), filepath.Join(at, name)); err != nil {
			t.Fatal(err)
		}
	}
	own, err := procfs.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := readAs(proc, pid, own); !errors.Is(err, errNotNovas) {
		t.Errorf("error %v", err)
	}
}

func TestOfManyProcessesThatArePassedOverAFewAreNamed(t *testing.T) {
	proc, root := t.TempDir(), t.TempDir()
	put(t, root, map[string]string{"etc/nova/nova.conf": def + "file"})
	for range maxPassed + 2 {
		strangers(t, proc, 0o755)
	}
	c, notes, err := Read(t.Context(), Options{Root: root, Proc: proc})
	if err != nil || host(t, c) != "file" || len(notes) != maxPassed+1 || !strings.Contains(notes[maxPassed], "2 more") {
		t.Errorf("%q, %v", notes, err)
	}
}
