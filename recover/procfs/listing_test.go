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
	_, err = p.descriptorsWithin(t.Context(), 200*time.Millisecond, nil)
	if !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), path) {
		t.Errorf("the open files: %v", err)
	}
	elsewhere := func(link string) bool { return !strings.HasPrefix(link, dir) }
	if _, err := p.descriptorsWithin(t.Context(), silence, elsewhere); err != nil {
		t.Errorf("a file was looked at that is not meant: %v", err)
	}
	answer()
	held, err := p.HeldBy(t.Context())
	recovertest.Must(t, err)
	if !slices.ContainsFunc(held, func(h HeldFile) bool { return h.Link == path }) {
		t.Error("the file system answers again, and the file is not seen")
	}
}
