package ground

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ScratchDir is where temporary files go on a ground.
const ScratchDir = "/var/tmp"

// Options say what a ground has. All paths are absolute.
type Options struct {
	// Dirs are directories of the machine that are seen at their own paths, and
	// writable. Those that do not exist are left out, and so is what a ground has of
	// its own or sees anyway: /, /etc, /usr and the like.
	Dirs []string
	// Binds are directories and files of the machine that are seen at other paths.
	Binds []Bind
	// Copies are files and directories of which the ground gets a copy at the same
	// path, with owners, modes and times. Those that do not exist are left out.
	Copies []string
	// Users and Groups must exist. Those that the machine has stay as they are.
	Users  []User
	Groups []string
	// KVM is the group that may open /dev/kvm. When empty nobody but root may.
	KVM string
	// Path has directories that are added to $PATH.
	Path []string
	// Disk is what /var is on.
	Disk Disk
}

// Bind is something of the machine that is seen at another path.
type Bind struct {
	Source   string // must exist
	Target   string // is made
	ReadOnly bool
}

// Disk is an ext4 file system in a file that has no name.
type Disk struct {
	Dir  string // of the machine, where the file is made; /var/tmp when empty
	Size int64  // in bytes, sparse; 64 GiB when 0
}

// base is where the new root is built. It is the root of a file system that is
// always mounted, so nobody can remove it, and it is no source of any bind.
const base = "/sys"

// Directories of a ground: what the machine has is bound, or linked as it is there.
func system() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/boot"}
}

func own() []string {
	return []string{"/etc", "/var", "/dev", "/proc", "/sys", "/run"}
}

func empty() []string {
	return []string{"/opt", "/srv", "/home", "/mnt", "/media", "/root"}
}

// Pivot makes the root of this mount namespace a ground. The caller is in mount and
// PID namespaces that are its own. The working directory stays what it is if the
// ground has it, and is / otherwise; TMPDIR is ScratchDir afterwards.
func Pivot(ctx context.Context, o Options) error {
	// Nothing that is mounted here may show outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("ground: make the mounts private: %w", err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("ground: the working directory: %w", err)
	}
	if err := build(ctx, o); err != nil {
		return fmt.Errorf("ground: %w", err)
	}
	// The old root is stacked on the new one, and taken off (pivot_root(2)).
	if err := os.Chdir(base); err != nil {
		return fmt.Errorf("ground: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("ground: pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("ground: unmount the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("ground: %w", err)
	}
	// Without it programs would look in vain where the directory was.
	if err := os.Chdir(cwd); errors.Is(err, fs.ErrNotExist) {
		err = os.Setenv("PWD", "/")
		if err != nil {
			return fmt.Errorf("ground: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("ground: the working directory: %w", err)
	}
	path := slices.Concat([]string{os.Getenv("PATH")}, o.Path, []string{"/usr/sbin", "/sbin"})
	return errors.Join(
		os.Setenv("TMPDIR", ScratchDir),
		os.Setenv("PATH", strings.Join(path, ":")),
	)
}

// build makes the new root at base.
func build(ctx context.Context, o Options) error {
	// While the machine's /sys is there: mkfs looks into it.
	disk := Image{Dir: o.Disk.Dir, Kind: Ext4, Size: o.Disk.Size}
	if disk.Dir == "" {
		disk.Dir = ScratchDir
	}
	if disk.Size == 0 {
		disk.Size = 64 << 30
	}
	loop, err := disk.attach(ctx)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := mount("tmpfs", base, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	var kvm []string
	if o.KVM != "" {
		kvm = []string{o.KVM}
	}
	for _, step := range []func() error{
		showSystem,
		func() error { return copyTree("/etc", inside("/etc")) },
		nameServers,
		func() error { return addAccounts(inside("/etc"), o.Users, slices.Concat(o.Groups, kvm)) },
		func() error { return makeDirs(loop, disk.mountOptions()) },
		func() error { return makeDevices(o.KVM) },
		func() error { return copyAll(o.Copies) },
		func() error { return bindAll(o) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	// Last, since the others look at the machine's: they need the PID namespace.
	if err := mount("proc", inside("/proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	return mount("sysfs", inside("/sys"), "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// inside is where a path of the ground is while it is built.
func inside(path string) string { return filepath.Join(base, path) }

// showSystem binds what is installed on the machine.
func showSystem() error {
	for _, dir := range system() {
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(dir)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, inside(dir)); err != nil {
				return err
			}
		default:
			if err := bind(Bind{Source: dir, Target: dir, ReadOnly: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameServers copies resolv.conf, which is often a link to a file in /run.
func nameServers() error {
	const path = "/etc/resolv.conf"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil //nolint:nilerr // a machine without network has none
	}
	if err := os.Remove(inside(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(inside(path), text, 0o644)
}

// makeDirs makes the directories that are the ground's own.
func makeDirs(loop *os.File, options string) error {
	for _, dir := range slices.Concat(own(), empty()) {
		if err := os.MkdirAll(inside(dir), 0o755); err != nil {
			return err
		}
	}
	if err := mount(loop.Name(), inside("/var"), string(Ext4), 0, options); err != nil {
		return err
	}
	if err := os.Remove(inside("/var/lost+found")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := mount("tmpfs", inside("/run"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"/var/lib", "/var/cache", "/var/log", "/var/spool", "/run/lock"} {
		if err := os.Mkdir(inside(dir), 0o755); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{"/var/run": "/run", "/var/lock": "/run/lock"} {
		if err := os.Symlink(target, inside(link)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", ScratchDir} {
		if err := os.Mkdir(inside(dir), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(inside(dir), os.ModeSticky|0o777); err != nil {
			return err
		}
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return os.MkdirAll(inside(home), 0o755)
	}
	return nil
}

// bindAll binds what the options name. A directory below one that is seen already is
// not bound again: its mount point would be on the machine's file system.
func bindAll(o Options) error {
	for _, b := range o.Binds {
		if err := bind(b); err != nil {
			return err
		}
	}
	var dirs []string
	for _, dir := range o.Dirs {
		real, err := filepath.EvalSymlinks(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		// Under the name that it was asked for by, and where the kernel says it is.
		dirs = append(dirs, filepath.Clean(dir), real)
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs) // a parent comes before what is in it
	var seen []string
	for _, dir := range dirs {
		if slices.Contains(append(own(), "/", "/tmp", "/var/tmp"), dir) || slices.ContainsFunc(append(seen, system()...), func(s string) bool {
			return dir == s || strings.HasPrefix(dir, s+"/")
		}) {
			continue
		}
		if err := bind(Bind{Source: dir, Target: dir}); err != nil {
			return err
		}
		seen = append(seen, dir)
	}
	return nil
}

// bind shows something of the machine in the new root.
func bind(b Bind) error {
	info, err := os.Stat(b.Source)
	if err != nil {
		return err
	}
	target := inside(b.Target)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else {
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		return err
	}
	if err := mount(b.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !b.ReadOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", b.Target, err)
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
