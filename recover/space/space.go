package space

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
)

// room is what a run needs on one file system, in bytes.
type room struct {
	recover.SpacePlan
	shared int64            // for files that stay: backing files, config drives
	each   map[string]int64 // by instance: for copies whose old inode is released when the instance is back
	users  map[string]bool  // the instances that need any of it
}

// measuring adds up what a plan needs, by the device of each file system.
type measuring struct {
	root     *beneath.Root
	settings recover.Settings
	rooms    map[uint64]*room
}

// Fit checks whether a plan's copies fit on their file systems below root, before the
// first guest is suspended: a full file system would pause the healthy guests on it. It
// fills in the plan's Space. If not all copies fit at once, it sets OneByOne and refuses
// every instance that does not fit alone. The error means that a file system could not be
// examined.
func Fit(plan *recover.Plan, root *beneath.Root, settings recover.Settings) error {
	m := &measuring{root: root, settings: settings, rooms: map[uint64]*room{}}
	seen := map[string]bool{}
	for _, todo := range plan.Work() {
		for _, f := range todo.Files {
			targets := []string{f.Path}
			if plan.Command == recover.CommandBackup {
				targets = nil
			}
			if plan.Options.BackupDir != "" && plan.Command != recover.CommandRestore {
				targets = append(targets, filepath.Join(plan.Options.BackupDir, "x"))
			}
			for n, path := range targets {
				key := fmt.Sprintf("%d %s %s", n, f.Key(), f.Path)
				if seen[key] {
					continue
				}
				seen[key] = true
				if err := m.need(todo, f, path, f.Writable && n == 0 && plan.Command == recover.CommandRescue); err != nil {
					return err
				}
			}
		}
	}
	for _, r := range m.rooms {
		r.decide(plan)
	}
	slices.SortFunc(plan.Space, func(a, b recover.SpacePlan) int { return int(b.Need - a.Need) })
	return nil
}

// need adds one copy, which goes to path, to the needs of its file system. temporary is
// true when the old inode is released as soon as the instance is back.
func (m *measuring) need(todo recover.InstancePlan, f recover.FilePlan, path string, temporary bool) error {
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
		fileSystem, err := dir.Statfs()
		if err != nil {
			return err
		}
		r = &room{each: map[string]int64{}, users: map[string]bool{}}
		r.SpacePlan = recover.SpacePlan{
			Path:     dir.Path(),
			Free:     int64(fileSystem.Free),
			Headroom: int64(float64(fileSystem.Total) * m.settings.Headroom),
			Clones:   Clones(filepath.Join(m.settings.Root, dir.Path()), fileSystem.Magic),
		}
		m.rooms[st.Dev] = r
	}
	mirrored := todo.Action == recover.ActionLive && f.Writable // a mirror is no clone
	need := f.Allocated
	if r.Clones && f.Device == st.Dev && !mirrored {
		if need = f.Reserved; need == 0 {
			return nil
		}
	}
	r.Need += need
	r.users[todo.UUID] = true
	if temporary {
		r.each[todo.UUID] += need
	} else {
		r.shared += need
	}
	return nil
}

// decide adapts a plan to the room on one file system.
func (r *room) decide(plan *recover.Plan) {
	plan.Space = append(plan.Space, r.SpacePlan)
	free := r.Free - r.Headroom
	if r.Need <= free {
		return
	}
	plan.OneByOne = true
	for n, todo := range plan.Instances {
		if todo.Action == recover.ActionNone || todo.Action == recover.ActionRefuse || !r.users[todo.UUID] {
			continue
		}
		if alone := r.shared + r.each[todo.UUID]; alone > free {
			plan.Instances[n] = todo.Refuse("%v on the file system of %s: it needs %s; %s are free, of which %s must stay free: "+
				"make room, or move other files away", recover.ErrNoSpace, r.Path,
				humanize.IBytes(uint64(alone)), humanize.IBytes(uint64(r.Free)), humanize.IBytes(uint64(r.Headroom)))
		}
	}
}

// Clones is true when copies on the file system of dir take no room: on btrfs, and on an
// XFS that was made with reflink. magic is its type (statfs(2)). The geometry of an XFS
// tells (XFS_IOC_FSGEOMETRY_V4 and XFS_FSOP_GEOM_FLAGS_REFLINK in the kernel's
// fs/xfs/libxfs/xfs_fs.h).
func Clones(dir string, magic int64) bool {
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
