package guard

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
)

// holdable knows on which file systems a file may be held. It is safe for concurrent use.
type holdable struct {
	root     *beneath.Root
	path     string // the instances directory
	problems *problems

	mu    sync.Mutex
	silly map[uint64]bool // by device, of those that were tried
}

func newHoldable(root *beneath.Root, instancesPath string, problems *problems) *holdable {
	return &holdable{root: root, path: instancesPath, problems: problems, silly: map[uint64]bool{}}
}

// mayHold is false for a directory on a file system on which a hold would keep it
// from being removed. Each file system is tried once.
func (m *holdable) mayHold(dir *beneath.Dir) bool {
	st, err := dir.Info()
	if err != nil {
		return false
	}
	m.mu.Lock()
	silly, tried := m.silly[st.Dev]
	m.mu.Unlock()
	if tried {
		return !silly
	}
	top, err := m.root.OpenDir(m.path)
	if err != nil {
		return false // tried again at the next scan of the tree
	}
	defer top.Close()
	if at, err := top.Info(); err != nil || at.Dev != st.Dev {
		return err == nil // a mount below the instances directory, which Nova does not make
	}
	silly, err = sillyRenames(top)
	if err != nil {
		err = fmt.Errorf("whether a deleted file that is open keeps a hidden name on this file system can't be tried out (for that the "+
			"instances directory must be writable to the guard: ReadWritePaths= and CAP_DAC_OVERRIDE in its unit), and in doubt "+
			"nothing is held: %w", err)
		silly = true
	}
	m.problems.set("probe", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silly[st.Dev] = silly
	return !silly
}

// sillyRenames is true where a file that is deleted while somebody has it open
// keeps a hidden name in its directory: a hold would keep Nova from removing that.
// NFS does it (fs/nfs/unlink.c, nfs_sillyrename), and so do some FUSE servers
// (libfuse's high-level interface, without hard_remove). top is the instances
// directory, in which it is tried where that is not known; an error means that it
// could not be tried.
func sillyRenames(top *beneath.Dir) (bool, error) {
	kind, err := top.Statfs()
	if err != nil {
		return false, err
	}
	switch uint32(kind.Magic) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC, 0x01161970, 0x2fc12fc1: // and GFS2, ZFS
		return false, nil
	case unix.NFS_SUPER_MAGIC:
		return true, nil
	}
	silly, err := trySillyRename(top)
	if err == nil {
		return silly, nil
	}
	// In its unit's sandbox the guard can't write there. ceph-fuse uses libfuse's
	// low-level interface, which leaves deletions to the server.
	info, ierr := top.Info()
	mounts, merr := os.ReadFile("/proc/self/mountinfo")
	if ierr == nil && merr == nil && mountKind(mounts, info.Dev) == "fuse.ceph-fuse" {
		return false, nil
	}
	return false, err
}

// mountKind returns the type of the file system that is mounted from a device
// (proc_pid_mountinfo(5)).
func mountKind(mountinfo []byte, device uint64) string {
	want := fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device))
	lines := bufio.NewScanner(strings.NewReader(string(mountinfo)))
	for lines.Scan() {
		left, right, _ := strings.Cut(lines.Text(), " - ")
		if place, kind := strings.Fields(left), strings.Fields(right); len(place) > 2 && len(kind) > 0 && place[2] == want {
			return kind[0]
		}
	}
	return ""
}

// trySillyRename finds out with a file of the guard's own in a directory of its own.
func trySillyRename(top *beneath.Dir) (silly bool, err error) {
	const name = recover.StagePrefix + "guard-probe"
	dir, err := top.Subdir(name)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err = top.Mkdir(name, beneath.Owner{Mode: 0o700})
	}
	if err != nil {
		return false, err
	}
	defer func() {
		dir.Close()
		if rerr := top.RemoveDir(name); err == nil && !silly && rerr != nil {
			err = rerr
		}
	}()
	if left, err := dir.Names(); err == nil { // of a guard that was killed
		for _, n := range left {
			_ = dir.Remove(n)
		}
	}
	f, err := dir.Create("probe")
	if err != nil {
		return false, err
	}
	err = dir.Remove("probe")
	var names []string
	if err == nil {
		names, err = dir.Names()
	}
	f.Close()
	return slices.ContainsFunc(names, func(n string) bool { return n != "probe" }), err
}
