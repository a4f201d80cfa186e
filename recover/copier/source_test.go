package copier_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
)

func TestOpenSourceRefusesWhatIsNotARegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	for path, want := range map[string]error{
		fifo:                          copier.ErrNotRegular,
		dir:                           copier.ErrNotRegular,
		"/dev/null":                   copier.ErrNotRegular,
		filepath.Join(dir, "nothing"): os.ErrNotExist,
	} {
		if _, err := copier.OpenSource(path, false); !errors.Is(err, want) {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

func TestFileSystemsAreKnownByName(t *testing.T) {
	for kind, want := range map[string]struct {
		name             string
		coherent, shared bool
	}{
		xfsReflink: {"xfs", true, false},
		ext4:       {"ext4", true, false},
		btrfs:      {"btrfs", true, false},
		tmpfs:      {"tmpfs", false, false},
		lying:      {"fuse", false, true},
	} {
		f, err := os.Open(mount(t, kind, 400))
		must(t, err)
		name, coherent, err := copier.Coherent(f)
		must(t, err)
		shared, err := copier.Shared(f)
		must(t, err)
		if name != want.name || coherent != want.coherent || shared != want.shared {
			t.Errorf("%s: %q, coherent %t, shared %t", kind, name, coherent, shared)
		}
		must(t, f.Close())
	}
}
