package recovertest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// Host is a compute node of the tests: a state directory with its keeper, and a
// fake hypervisor whose guests are real processes that hold real files.
type Host struct {
	T        testing.TB       // the test that it ends with
	Settings recover.Settings // of an engine on it
	HV       *FakeHypervisor  // offline, the only one who knows its domains
	Cloud    *FakeCloud       // nil offline
}

// NewHost makes a host, named "node", whose processes are ended after the test. All
// files belong to root, nothing is waited for longer than seconds, and the keeper is
// the test binary itself: its TestMain calls Main.
func NewHost(t testing.TB) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "recover-test-")
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	Must(t, err)
	state := filepath.Join(dir, "state")
	Must(t, os.Mkdir(state, 0o700))
	settings := recover.DefaultSettings()
	settings.Host = "node"
	settings.StateDir = state
	settings.RunDir = filepath.Join(dir, "run")
	settings.InstancesPath = filepath.Join(dir, "nova/instances")
	settings.ComputeIDPaths = []string{filepath.Join(dir, "nova", recover.ComputeIDName), filepath.Join(dir, "etc", recover.ComputeIDName)}
	settings.Owners = rootOwners()
	settings.Headroom = 0
	settings.FreezeTimeout = time.Second
	settings.StartTimeout = 30 * time.Second
	settings.RebootTimeout = 30 * time.Second
	settings.Watch = 0
	settings.KeeperCommand = []string{"/usr/bin/env", roleVariable + "=" + roleKeeper, dirVariable + "=" + state, self}
	h := &Host{T: t, Settings: settings, HV: newHypervisor()}
	t.Cleanup(func() {
		h.HV.EndAll()
		h.KillKeeper()
	})
	Must(t, os.MkdirAll(settings.InstancesPath, 0o755))
	return h
}

// rootOwners is a table by which every file is root's.
func rootOwners() recover.OwnerTable {
	dir, file := recover.OwnerRule{User: "root", Group: "root", Mode: 0o755}, recover.OwnerRule{User: "root", Group: "root", Mode: 0o644}
	log := recover.OwnerRule{User: "root", Group: "root", Mode: 0o660}
	return recover.OwnerTable{
		InstancesDir: dir, BaseDir: dir, InstanceDir: dir, LocksDir: dir,
		Base: file, Disk: file, ConfigDrive: file, ConsoleLog: log, DiskInfo: file,
	}
}

// SmallHost is a host whose instances directory is on a file system of that size, as
// tmpfs takes it ("2m").
func SmallHost(t testing.TB, size string) *Host {
	t.Helper()
	return hostOn(t, func(dir string) {
		Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=755"))
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	})
}

// Ext4Host is a host whose instances directory is on an ext4, which gives freed inode
// numbers to the next files. args are further ones of mkfs.ext4.
func Ext4Host(t testing.TB, args ...string) *Host {
	t.Helper()
	return hostOn(t, func(dir string) { MountExt4(t, dir, args...) })
}

func hostOn(t testing.TB, mount func(dir string)) *Host {
	t.Helper()
	h := NewHost(t)
	mount(filepath.Dir(h.Settings.InstancesPath))
	t.Cleanup(func() {
		h.HV.EndAll()
		h.KillKeeper()
	})
	Must(t, os.Mkdir(h.Settings.InstancesPath, 0o755))
	return h
}

// Elsewhere is the same host with another, empty instances directory and hypervisor.
func (h *Host) Elsewhere(t testing.TB) *Host {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(h.Settings.StateDir), "site-")
	Must(t, err)
	other := &Host{T: t, Settings: h.Settings, HV: newHypervisor()}
	other.Settings.InstancesPath = filepath.Join(dir, "instances")
	Must(t, os.MkdirAll(other.Settings.InstancesPath, 0o755))
	t.Cleanup(other.HV.EndAll)
	// Journals of runs elsewhere only cost time.
	runs := filepath.Join(h.Settings.StateDir, "runs")
	Must(t, os.RemoveAll(runs))
	Must(t, os.Mkdir(runs, 0o700))
	return other
}

// Online gives the host a Nova that has all its domains.
func (h *Host) Online() *FakeCloud {
	c := NewCloud(h.T, h.HV)
	c.Services[h.Settings.Host] = recover.ComputeService{Known: true, Up: true, UpdatedAt: time.Now().UTC()}
	for _, d := range h.HV.ByUUID {
		c.addDomain(d.Domain, h.Settings.Host)
	}
	h.Cloud = c
	return c
}

// Purge deletes everything below the instances directory.
func (h *Host) Purge() {
	h.T.Helper()
	entries, err := os.ReadDir(h.Settings.InstancesPath)
	Must(h.T, err)
	for _, e := range entries {
		Must(h.T, os.RemoveAll(filepath.Join(h.Settings.InstancesPath, e.Name())))
	}
}

// Chown gives the instances directory to another user, as it is nova's.
func (h *Host) Chown() {
	h.T.Helper()
	const nobody = 65534
	Must(h.T, os.Chown(h.Settings.InstancesPath, nobody, nobody))
}

// Staged returns what is left of staging directories and files.
func (h *Host) Staged() []string {
	var left []string
	_ = filepath.WalkDir(filepath.Dir(h.Settings.InstancesPath), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), recover.StagePrefix) {
			left = append(left, path)
			entries, _ := os.ReadDir(path)
			for _, e := range entries {
				left = append(left, filepath.Join(path, e.Name()))
			}
			return filepath.SkipDir
		}
		return nil
	})
	return left
}

// KillKeeper ends the host's keeper, if one runs, and waits for its end.
func (h *Host) KillKeeper() {
	lock := filepath.Join(h.Settings.StateDir, "keeper.lock")
	data, err := os.ReadFile(lock)
	if err != nil {
		return
	}
	f, err := os.Open(lock)
	if err != nil {
		return
	}
	defer f.Close()
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 &&
		unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		for unix.Flock(int(f.Fd()), unix.LOCK_EX) == unix.EINTR {
		}
	}
}

// DropLock takes the locks of runs away from whatever in this process has them, as the
// kernel does from a process that ends.
func (h *Host) DropLock() {
	h.T.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	Must(h.T, err)
	for _, n := range names {
		link, _ := os.Readlink("/proc/self/fd/" + n.Name())
		if link == filepath.Join(h.Settings.StateDir, "lock") || filepath.Dir(link) == h.Settings.RunDir {
			fd, err := strconv.Atoi(n.Name())
			Must(h.T, err)
			unlock := unix.Flock_t{Type: unix.F_UNLCK}
			Must(h.T, unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unlock))
		}
	}
}
