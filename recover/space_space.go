package recover

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// room is what a run needs on one file system.
type room struct {
	SpacePlan
	shared int64            // for files that stay for good: backing files, config drives
	each   map[string]int64 // by instance: for what is let go when the instance is back
	users  map[string]bool  // the instances that need any of it
}

// measuring finds out what a plan needs, by the device of each file system.
type measuring struct {
	root     *beneath.Root
	settings Settings
	rooms    map[uint64]*room
}

// fit checks, before the first pause, whether a plan's copies fit with their
// headroom: a full file system pauses the healthy guests on it. When not all fit
// at once it turns the plan into one by one, and refuses what does not fit alone.
func fit(plan *Plan, root *beneath.Root, settings Settings) error {
	m := &measuring{root: root, settings: settings, rooms: map[uint64]*room{}}
	seen := map[string]bool{}
	for _, ip := range plan.Work() {
		for _, f := range ip.Files {
			dirs := []string{f.Path}
			if plan.Command == CommandBackup {
				dirs = nil
			}
			if plan.Options.BackupDir != "" && plan.Command != CommandRestore {
				dirs = append(dirs, filepath.Join(plan.Options.BackupDir, "x"))
			}
			for n, path := range dirs {
				key := fmt.Sprintf("%d %s %s", n, f.Key(), f.Path)
				if seen[key] {
					continue
				}
				seen[key] = true
				if err := m.need(ip, f, path, f.Writable && n == 0 && plan.Command == CommandRescue); err != nil {
					return err
				}
			}
		}
	}
	for _, r := range m.rooms {
		r.decide(plan)
	}
	slices.SortFunc(plan.Space, func(a, b SpacePlan) int { return int(b.Need - a.Need) })
	return nil
}

// need adds one file to what its file system must have room for.
func (m *measuring) need(ip InstancePlan, f FilePlan, path string, temporary bool) error {
	dir, err := m.root.Nearest(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	st, err := dir.Info()
	if err != nil {
		return err
	}
	r := m.rooms[st.Dev]
	if r == nil {
		space, err := dir.Statfs()
		if err != nil {
			return err
		}
		r = &room{each: map[string]int64{}, users: map[string]bool{}, SpacePlan: SpacePlan{Path: dir.Path(), Free: int64(space.Free),
			Headroom: int64(float64(space.Total) * m.settings.Headroom)}}
		r.Clones = clones(filepath.Join(m.settings.Root, dir.Path()), space.Magic)
		m.rooms[st.Dev] = r
	}
	mirrored := ip.Action == ActionLive && f.Writable // which is no clone
	if r.Clones && f.Device == st.Dev && !mirrored {
		return nil
	}
	r.Need += f.Allocated
	r.users[ip.UUID] = true
	if temporary {
		r.each[ip.UUID] += f.Allocated
	} else {
		r.shared += f.Allocated
	}
	return nil
}

// decide decides what becomes of a plan with that much room.
func (r *room) decide(plan *Plan) {
	plan.Space = append(plan.Space, r.SpacePlan)
	free := r.Free - r.Headroom
	if r.Need <= free {
		return
	}
	plan.OneByOne = true
	for n, ip := range plan.Instances {
		if ip.Action == ActionNone || ip.Action == ActionRefuse || !r.users[ip.UUID] {
			continue
		}
		if alone := r.shared + r.each[ip.UUID]; alone > free {
			plan.Instances[n] = ip.refuse("%v on the file system of %s: it needs %s, %s are free, and %s of those must stay free: make room, or move other files away", ErrNoSpace, r.Path,
				humanize.IBytes(uint64(alone)), humanize.IBytes(uint64(r.Free)), humanize.IBytes(uint64(r.Headroom)))
		}
	}
}

// clones is true where a copy takes no room: on btrfs, and on an XFS that was
// made with reflink, which its geometry tells (XFS_IOC_FSGEOMETRY_V4 and
// XFS_FSOP_GEOM_FLAGS_REFLINK in the kernel's fs/xfs/libxfs/xfs_fs.h).
func clones(dir string, magic int64) bool {
	const (
		geometryV4 = 0x8070587c // _IOR('X', 124, struct xfs_fsop_geom_v4)
		flagsAt    = 92         // offset of its flags: eleven 32-bit numbers, four 64-bit ones and a UUID before
		reflink    = 1 << 20
	)
	switch magic {
	case unix.BTRFS_SUPER_MAGIC:
		return true
	case unix.XFS_SUPER_MAGIC:
	default:
		return false
	}
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	var geometry [112]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), geometryV4, uintptr(unsafe.Pointer(&geometry[0]))); errno != 0 {
		return false
	}
	flags := *(*uint32)(unsafe.Pointer(&geometry[flagsAt]))
	return flags&reflink != 0
}
