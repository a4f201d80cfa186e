package treelock

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// host is a directory with the /run of a host and an instances directory, and the settings of a
// run there.
func host(t *testing.T) (dir string, settings recover.Settings) {
	t.Helper()
	dir = t.TempDir()
	settings = recover.DefaultSettings()
	settings.RunDir = filepath.Join(dir, "run")
	settings.StateDir = "/state/one"
	settings.Root = dir
	settings.InstancesPath = "/lib/nova/instances"
	recovertest.Must(t, os.MkdirAll(filepath.Join(dir, settings.InstancesPath), 0o755))
	return dir, settings
}

// take takes the lock of a run named after its state directory.
func take(settings recover.Settings) (*Lock, error) {
	info := statedir.LockInfo{Run: filepath.Base(settings.StateDir), Command: recover.CommandRescue, PID: os.Getpid(), Since: time.Now()}
	return Take(settings, info)
}

func mustTake(t *testing.T, settings recover.Settings) *Lock {
	t.Helper()
	l, err := take(settings)
	recovertest.Must(t, err)
	t.Cleanup(l.Release)
	return l
}

// refused fails the test unless the lock is another run's.
func refused(t *testing.T, settings recover.Settings) error {
	t.Helper()
	l, err := take(settings)
	if err == nil {
		l.Release()
	}
	if !errors.Is(err, recover.ErrBusy) {
		t.Errorf("the lock of %s: %v", settings.InstancesPath, err)
	}
	return err
}

func TestTwoRunsOfOneTreeAreNotLetInWhateverTheirStateDirectories(t *testing.T) {
	dir, one := host(t)
	two := one
	two.StateDir = "/state/two"
	l := mustTake(t, one)
	text := refused(t, two).Error()
	for _, part := range []string{"rescue one", one.InstancesPath, "OS_RESCUE_STATE_DIR=/state/one os-rescue status one"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
	other := two
	other.InstancesPath = "/lib/other/instances"
	mustTake(t, other) // before and after it is there
	other.InstancesPath = "/lib/nova/instances2"
	recovertest.Must(t, os.Mkdir(filepath.Join(dir, other.InstancesPath), 0o755))
	mustTake(t, other)
	recovertest.Must(t, l.SetHolder(one, statedir.LockInfo{Run: "one", Command: statedir.CommandUndo, PID: 7}))
	if text := refused(t, two).Error(); !strings.Contains(text, "undo one, process 7") {
		t.Error(text)
	}
	l.Release()
	l.Release()
	mustTake(t, two)
}

func TestATreeThatIsRemovedAndMadeAnewStaysLocked(t *testing.T) {
	for _, gone := range []string{"lib/nova/instances", "lib/nova", "lib"} {
		t.Run(gone, func(t *testing.T) {
			dir, one := host(t)
			two := one
			two.StateDir = "/state/two"
			l := mustTake(t, one)
			recovertest.Must(t, os.RemoveAll(filepath.Join(dir, gone)))
			_ = refused(t, two)
			recovertest.Must(t, os.MkdirAll(filepath.Join(dir, one.InstancesPath), 0o755))
			_ = refused(t, two)
			l.Release()

			recovertest.Must(t, os.RemoveAll(filepath.Join(dir, gone)))
			mustTake(t, one) // of what is not there
			recovertest.Must(t, os.MkdirAll(filepath.Join(dir, one.InstancesPath), 0o755))
			_ = refused(t, two)
		})
	}
}

func TestATreeIsTheSameThroughAnotherMountAndASymlink(t *testing.T) {
	dir, one := host(t)
	volume := filepath.Join(dir, "volume")
	recovertest.Must(t, os.Mkdir(volume, 0o755))
	recovertest.Must(t, unix.Mount(filepath.Join(dir, "lib/nova"), volume, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	mounted, linked := one, one
	mounted.InstancesPath = "/volume/instances"
	recovertest.Must(t, os.Symlink("lib/nova", filepath.Join(dir, "link")))
	linked.InstancesPath = "/link/instances"
	for _, before := range []bool{true, false} { // the tree's removal
		l := mustTake(t, one)
		if !before {
			recovertest.Must(t, os.Remove(filepath.Join(dir, one.InstancesPath)))
		}
		_ = refused(t, mounted)
		_ = refused(t, linked)
		l.Release()
		l = mustTake(t, mounted)
		_ = refused(t, one)
		l.Release()
	}
}

// The witness of a killed run has its lock, and whoever is killed loses it.
func TestTheLockEndsWithTheLastProcessThatHasIt(t *testing.T) {
	_, one := host(t)
	two := one
	two.StateDir = "/state/two"
	l, err := take(one)
	recovertest.Must(t, err)
	shares := exec.CommandContext(context.WithoutCancel(t.Context()), "sleep", "600")
	shares.ExtraFiles = l.Files()
	recovertest.Must(t, shares.Start())
	for _, f := range l.Files() {
		recovertest.Must(t, f.Close()) // as the kernel does it for one that is killed
	}
	_ = refused(t, two)
	recovertest.Must(t, shares.Process.Kill())
	_ = shares.Wait()
	mustTake(t, two)
}
