package procfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// Any process can have a file open on a file system whose server is dead: nobody waits for that. It is
// dead for a moment only, because every test on this host that looks at all processes waits meanwhile.
func TestADeadFileSystemIsNotWaitedFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dead")
	recovertest.Must(t, os.Mkdir(dir, 0o755))
	server, err := lyingfs.Mount(dir, t.TempDir(), lyingfs.Options{})
	recovertest.Must(t, err)
	defer func() { recovertest.Must(t, server.Unmount()) }()
	path := filepath.Join(dir, "open")
	f, err := os.Create(path)
	recovertest.Must(t, err)
	defer f.Close()
	p, err := Open(Dir, os.Getpid())
	recovertest.Must(t, err)
	defer p.Close()

	answer := server.Hang()
	defer answer()
	all := func(string) bool { return true }
	asked := listing{p: p, asks: all}
	if _, err = asked.list(t.Context(), 200*time.Millisecond); !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), path) {
		t.Errorf("the open files: %v", err)
	}
	waiting := listing{p: p, asks: all, waiting: true}
	if _, err := waiting.read(t.Context()); !errors.Is(err, ErrSilent) {
		t.Errorf("the same while many wait: %v", err)
	}
	unasked := listing{p: p}
	open, err := unasked.list(t.Context(), silence)
	if err != nil || !slices.ContainsFunc(open, func(d Descriptor) bool { return d.Link == path && d.Writable() }) {
		t.Errorf("nobody need be asked who has it open: %v, %v", open, err)
	}
	answer()
	held, err := p.HeldBy(t.Context())
	recovertest.Must(t, err)
	if !slices.ContainsFunc(held, func(h HeldFile) bool { return h.Link == path }) {
		t.Error("the file system answers again, and the file is not seen")
	}
}
