package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// computeNode is a directory of Nova's with its compute_id, and where copies of that go.
type computeNode struct {
	t     *testing.T
	root  *beneath.Root
	dir   Dir
	file  string
	paths []string
}

func newComputeNode(t *testing.T) *computeNode {
	t.Helper()
	root, err := beneath.OpenRoot("/")
	recovertest.Must(t, err)
	t.Cleanup(func() { root.Close() })
	n := &computeNode{t: t, root: root, dir: In(t.TempDir())}
	recovertest.Must(t, n.dir.Create())
	top := t.TempDir()
	n.file = filepath.Join(top, "nova", recover.ComputeIDName)
	n.paths = []string{n.file, filepath.Join(top, "etc", recover.ComputeIDName)}
	for _, path := range n.paths {
		recovertest.Must(t, os.Mkdir(filepath.Dir(path), 0o755))
	}
	return n
}

func (n *computeNode) write(path, content string) {
	n.t.Helper()
	recovertest.Must(n.t, os.WriteFile(path, []byte(content), 0o640))
}

func (n *computeNode) keep() {
	n.t.Helper()
	recovertest.Must(n.t, n.dir.KeepComputeID(n.root, n.paths))
}

// fault returns what is wrong, in words; empty for nothing.
func (n *computeNode) fault() string {
	f := n.dir.ComputeIDFault(n.root, n.paths)
	switch {
	case f == nil:
		return ""
	case f.Missing():
		return "missing"
	}
	return f.Problem
}

func TestAComputeIDIsMissedOnlyWhereOneWasSeen(t *testing.T) {
	n := newComputeNode(t)
	n.keep()
	if f := n.fault(); f != "" {
		t.Errorf("where there never was one: %s", f)
	}
	n.write(n.file, recovertest.UUID(1)+"\n")
	if f := n.fault(); f != "" {
		t.Errorf("where no guard has ever run: %s", f)
	}
	n.keep()
	if f := n.fault(); f != "" {
		t.Errorf("while it is there: %s", f)
	}
	recovertest.Must(t, os.RemoveAll(filepath.Dir(n.file)))
	n.keep()
	if f := n.fault(); f != "missing" {
		t.Errorf("after a purge: %q", f)
	}
	kept, err := n.dir.ComputeID()
	recovertest.Must(t, err)
	if kept.Content != recovertest.UUID(1)+"\n" || kept.User != "root" || kept.Group != "root" || kept.Mode != 0o640 || kept.Path != n.file {
		t.Errorf("kept: %+v", kept)
	}
	n.write(n.paths[1], strings.ToUpper(recovertest.UUID(1)))
	if f := n.fault(); f != "" {
		t.Errorf("provided beside the configuration: %s", f)
	}
	n.paths = n.paths[:1] // a purge takes the configuration, by which the place was known
	recovertest.Must(t, os.Remove(filepath.Join(filepath.Dir(filepath.Dir(n.file)), "etc", recover.ComputeIDName)))
	if f := n.fault(); f != "missing" {
		t.Errorf("after another purge: %q", f)
	}
}

// Who can write Nova's directory can't make the guard wait, read without end, follow a link
// or forget what it knows.
func TestNothingInItsPlaceReplacesTheCopyOfAComputeID(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(path string) error
		want string
	}{
		"a symlink":   {func(path string) error { return os.Symlink("/dev/zero", path) }, "symlink"},
		"a FIFO":      {func(path string) error { return unix.Mkfifo(path, 0o600) }, "not a regular file"},
		"a directory": {func(path string) error { return os.Mkdir(path, 0o700) }, "not a regular file"},
		"an endless file": {func(path string) error {
			return os.WriteFile(path, nil, 0o600)
		}, "no UUID"},
		"no UUID":      {func(path string) error { return os.WriteFile(path, []byte("node-1"), 0o600) }, "no UUID"},
		"another UUID": {func(path string) error { return os.WriteFile(path, []byte(recovertest.UUID(2)), 0o600) }, recovertest.UUID(2)},
	} {
		t.Run(name, func(t *testing.T) {
			n := newComputeNode(t)
			n.write(n.file, recovertest.UUID(1))
			n.keep()
			recovertest.Must(t, os.Remove(n.file))
			recovertest.Must(t, c.put(n.file))
			if name == "an endless file" {
				recovertest.Must(t, os.Truncate(n.file, 1<<40))
			}
			began := time.Now()
			n.keep()
			if f := n.fault(); !strings.Contains(f, c.want) {
				t.Errorf("it is said to be %q", f)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if kept, err := n.dir.ComputeID(); err != nil || kept.UUID != recovertest.UUID(1) {
				t.Errorf("kept: %+v, %v", kept, err)
			}
		})
	}
}

func TestOfTwoThatContradictEachOtherNoneIsKept(t *testing.T) {
	n := newComputeNode(t)
	n.write(n.paths[0], recovertest.UUID(1))
	n.write(n.paths[1], recovertest.UUID(2))
	n.keep()
	if kept, err := n.dir.ComputeID(); kept != nil || err != nil {
		t.Errorf("kept: %+v, %v", kept, err)
	}
}

func TestADamagedCopyOfAComputeIDIsToldAndReplaced(t *testing.T) {
	for _, damaged := range []string{"", "{}", `{"path":"/etc/passwd","content":"` + recovertest.UUID(1) + `"}`} {
		n := newComputeNode(t)
		recovertest.Must(t, os.WriteFile(n.dir.computeIDFile(), []byte(damaged), 0o600))
		if err := n.dir.KeepComputeID(n.root, n.paths); err == nil || n.fault() == "" || n.fault() == "missing" {
			t.Errorf("%q: %v, %q", damaged, err, n.fault())
		}
		n.write(n.file, recovertest.UUID(1))
		n.keep()
		if f := n.fault(); f != "" {
			t.Errorf("%q: %s", damaged, f)
		}
	}
}
