package procfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// Any process can have a file open on a file system whose server is dead: nobody waits for that.
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
	answer := server.Hang()
	defer answer()

	begun := time.Now()
	if _, err := procfs.HeldBy(t.Context(), os.Getpid()); !errors.Is(err, procfs.ErrSilent) || !strings.Contains(err.Error(), path) {
		t.Errorf("the open files: %v", err)
	}
	if _, err := procfs.Writers(t.Context(), procfs.Dir, 1); !errors.Is(err, procfs.ErrSilent) {
		t.Errorf("all that is written: %v", err)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	p, err := procfs.Open(procfs.Dir, os.Getpid())
	recovertest.Must(t, err)
	defer p.Close()
	if _, err := p.DeletedBy(t.Context(), "/var/lib/nova/instances"); err != nil {
		t.Errorf("a file was looked at that has a name elsewhere: %v", err)
	}
	answer()
	held, err := procfs.HeldBy(t.Context(), os.Getpid())
	recovertest.Must(t, err)
	for _, h := range held {
		if h.Link == path {
			return
		}
	}
	t.Error("the file system answers again, and the file is not seen")
}
