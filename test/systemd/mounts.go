package systemd

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	unitDir  = "/run/systemd/system"
	ownDir   = "/run/os-rescue-systemd"
	emptyDir = ownDir + "/empty"
	logFile  = ownDir + "/log" // systemd's console
	target   = "os-rescue-test.target"

	cgroupRoot     = "/sys/fs/cgroup"
	cgroupVariable = "OS_RESCUE_SYSTEMD_CGROUP" // the number in the name of the control group
	cgroupPrefix   = "os-rescue-systemd-"
)

// prepare makes this ground one that systemd can do no harm on.
func prepare() error {
	for _, dir := range []string{unitDir, emptyDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		logFile:                        "",
		"/dev/console":                 "",
		"/etc/machine-id":              "0123456789abcdef0123456789abcdef\n",
		filepath.Join(unitDir, target): "[Unit]\nDescription=The test\nDefaultDependencies=no\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := ownCgroup(os.Getenv(cgroupVariable)); err != nil {
		return err
	}
	// Limits of the kernel, which are the machine's.
	if err := mount("/proc/sys", "/proc/sys", "", unix.MS_BIND); err != nil {
		return err
	}
	if err := mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY); err != nil {
		return err
	}
	// The machine's configuration is not for this one.
	if err := os.RemoveAll("/etc/systemd"); err != nil {
		return err
	}
	if err := mount(logFile, "/dev/console", "", unix.MS_BIND); err != nil {
		return err
	}
	// As systemd makes it at boot: services get what is mounted later.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the mounts: %w", err)
	}
	return nil
}

// ownCgroup makes a control group of the unified hierarchy (cgroups(7)) the root
// of all that this thread sees, and mounts that where systemd looks for it.
func ownCgroup(name string) error {
	if err := unix.Unmount(cgroupRoot, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("hide the machine's control groups: %w", err)
	}
	machine := ownDir + "/cgroup"
	if err := os.MkdirAll(machine, 0o755); err != nil {
		return err
	}
	if err := mount("cgroup2", machine, "cgroup2", 0); err != nil {
		return err
	}
	path, err := cgroupPath()
	if err != nil {
		return err
	}
	dir := filepath.Join(machine, path, cgroupPrefix+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("a control group namespace: %w", err)
	}
	if err := unix.Unmount(machine, unix.MNT_DETACH); err != nil {
		return err
	}
	return mount("cgroup2", cgroupRoot, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
}

// cgroupPath is this process's place in the unified hierarchy.
func cgroupPath() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("no unified control groups in /proc/self/cgroup")
}

// removeCgroup removes what ownCgroup made, by a mount that the machine has of it.
// Without one an empty control group stays.
func removeCgroup(name int) {
	path, err := cgroupPath()
	if err != nil {
		return
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		left, right, _ := strings.Cut(s.Text(), " - ")
		place := strings.Fields(left)
		if len(place) < 5 || place[3] != "/" || !strings.HasPrefix(right, "cgroup2 ") {
			continue
		}
		top := filepath.Join(place[4], path, fmt.Sprint(cgroupPrefix, name))
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = os.Remove(dirs[i])
		}
		return
	}
}

func mount(source, target, kind string, flags uintptr) error {
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
