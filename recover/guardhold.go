package recover

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// Shelf keeps descriptors for a guard while it is restarted, however it ended:
// systemd's descriptor store (sd_pid_notify_with_fds(3)).
type Shelf interface {
	// StoreFD puts a descriptor on the shelf under a name, which is ASCII without
	// a colon and used once.
	StoreFD(name string, f *os.File) error
	// RemoveFD takes it off: only then the file can be freed.
	RemoveFD(name string) error
}

// guardHold is one file that the guard holds.
type guardHold struct {
	holdMemory
	file   *os.File
	shelf  string // its name on the shelf; empty when it is not there
	bytes  int64  // on disk, at the last look
	direct bool   // the descriptor has O_DIRECT
}

// holdMemory is what of a hold outlives the guard's process, in holds.json.
type holdMemory struct {
	Device  uint64    `json:"device"`
	Inode   uint64    `json:"inode"`
	Path    string    `json:"path"` // the last name that was seen
	Owners  []string  `json:"owners,omitempty"`
	Role    Role      `json:"role"`
	Format  string    `json:"format,omitempty"`
	Target  string    `json:"target,omitempty"`
	Backing string    `json:"backing,omitempty"`
	Since   time.Time `json:"since"`
	// Deleted is when it was seen without a name first; zero while it has one.
	Deleted time.Time `json:"deleted,omitzero"`
	// Needed is true once an instance that exists had lost it: then only a proven
	// copy, Nova's word, or an operator's lets it go.
	Needed bool `json:"needed,omitempty"`
}

func (h *guardHold) inode() inode { return inode{h.Device, h.Inode} }

// copy is for who looks at a hold without the lock.
func (h *guardHold) copy() guardHold {
	c := *h
	c.Owners = slices.Clone(h.Owners)
	return c
}

// holdings are all files that a guard holds. It is safe for concurrent use.
type holdings struct {
	shelf Shelf // nil: there is none

	mu       sync.Mutex
	files    map[inode]*guardHold
	memory   map[inode]holdMemory // of an earlier life, for files that are found again
	changed  bool                 // since it was saved
	released map[keeper.ReleaseReason]int
	poke     func() // called when a client released something
}

func newHoldings(shelf Shelf) *holdings {
	return &holdings{shelf: shelf, files: map[inode]*guardHold{}, memory: map[inode]holdMemory{}, released: map[keeper.ReleaseReason]int{}, poke: func() {}}
}

// add takes a file over, under what is known of it, and closes it when it is held
// already. An error is the shelf's: the file is held all the same.
func (h *holdings) add(f *os.File, m holdMemory) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return err
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		f.Close()
		return err
	}
	m.Device, m.Inode = st.Dev, st.Ino
	hold := &guardHold{holdMemory: m, file: f, bytes: st.Blocks * 512, direct: flags&unix.O_DIRECT != 0}
	if hold.Since.IsZero() {
		hold.Since = time.Now().UTC()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.files[hold.inode()] != nil {
		f.Close()
		return nil
	}
	if old, ok := h.memory[hold.inode()]; ok && old.Path == hold.Path {
		hold.Since, hold.Deleted, hold.Needed = old.Since, old.Deleted, old.Needed
		hold.Owners = union(hold.Owners, old.Owners)
		delete(h.memory, hold.inode())
	}
	h.files[hold.inode()] = hold
	h.changed = true
	return h.put(hold)
}

// put puts a hold's descriptor on the shelf.
func (h *holdings) put(hold *guardHold) error {
	if h.shelf == nil || hold.shelf != "" {
		return nil
	}
	// Short: the names of all have to fit into one variable of the environment.
	name := strconv.FormatUint(hold.Device, 36) + "-" + strconv.FormatUint(hold.Inode, 36)
	if hold.direct {
		name += "-d"
	}
	if err := h.shelf.StoreFD(name, hold.file); err != nil {
		return fmt.Errorf("%s would not outlive the guard: %w", hold.Path, err)
	}
	hold.shelf = name
	return nil
}

// adopt takes over a descriptor that an earlier life had put on the shelf.
func (h *holdings) adopt(name string, f *os.File) error {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		f.Close()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := inode{st.Dev, st.Ino}
	m, ok := h.memory[key]
	if !ok {
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			f.Close()
			return err
		}
		m = holdMemory{Path: heldPaths(link, st.Nlink == 0)[0], Role: RoleOther, Since: time.Now().UTC()}
	}
	m.Device, m.Inode = st.Dev, st.Ino
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if old := h.files[key]; old != nil || err != nil {
		f.Close()
		if old == nil || old.shelf != name {
			err = errors.Join(err, h.shelf.RemoveFD(name))
		}
		return err
	}
	delete(h.memory, key)
	h.files[key] = &guardHold{holdMemory: m, file: f, shelf: name, bytes: st.Blocks * 512, direct: flags&unix.O_DIRECT != 0}
	h.changed = true
	return nil
}

// makeDirect replaces a descriptor by one with O_DIRECT: what the file is read
// with must be what its QEMU has.
func (h *holdings) makeDirect(key inode, f *os.File) error {
	h.mu.Lock()
	hold := h.files[key]
	if hold == nil || hold.direct {
		h.mu.Unlock()
		f.Close()
		return nil
	}
	old, name := hold.file, hold.shelf
	hold.file, hold.shelf, hold.direct = f, "", true
	err := h.put(hold)
	h.mu.Unlock()
	if name != "" {
		err = errors.Join(err, h.shelf.RemoveFD(name))
	}
	old.Close()
	return err
}

// lookAtEach calls do with a copy of every hold, and what its file is like now.
// Files are looked at outside the lock: on a dead server that can hang.
func (h *holdings) lookAtEach(do func(hold guardHold, st unix.Stat_t)) {
	h.mu.Lock()
	all := make([]guardHold, 0, len(h.files))
	for _, hold := range h.files {
		all = append(all, hold.copy())
	}
	h.mu.Unlock()
	for _, hold := range all {
		var st unix.Stat_t
		// An error means that it was let go since.
		if keeper.Control(hold.file, func(fd int) error { return unix.Fstat(fd, &st) }) == nil && st.Dev == hold.Device && st.Ino == hold.Inode {
			do(hold, st)
		}
	}
}

// update changes what is known of a hold; false when it is not held any more.
func (h *holdings) update(key inode, do func(*guardHold)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	hold := h.files[key]
	if hold == nil {
		return false
	}
	before := hold.holdMemory
	before.Owners = slices.Clone(hold.Owners)
	do(hold)
	if !sameMemory(before, hold.holdMemory) {
		h.changed = true
	}
	return true
}

func sameMemory(a, b holdMemory) bool {
	return a.Path == b.Path && slices.Equal(a.Owners, b.Owners) && a.Role == b.Role && a.Format == b.Format && a.Target == b.Target &&
		a.Backing == b.Backing && a.Deleted.Equal(b.Deleted) && a.Needed == b.Needed
}

// each changes what is known of every hold.
func (h *holdings) each(do func(*guardHold)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hold := range h.files {
		before := hold.holdMemory
		before.Owners = slices.Clone(hold.Owners)
		do(hold)
		if !sameMemory(before, hold.holdMemory) {
			h.changed = true
		}
	}
}

// owners are the instances that something is held for.
func (h *holdings) owners() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	owned := map[string]bool{}
	for _, hold := range h.files {
		for _, o := range hold.Owners {
			owned[o] = true
		}
	}
	return owned
}

// deleted returns copies of the holds whose files have no name, the oldest
// deletion first.
func (h *holdings) deleted() []guardHold {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []guardHold
	for _, hold := range h.files {
		if !hold.Deleted.IsZero() {
			list = append(list, hold.copy())
		}
	}
	slices.SortFunc(list, func(a, b guardHold) int {
		return cmp.Or(a.Deleted.Compare(b.Deleted), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Inode, b.Inode))
	})
	return list
}

// letGo lets a deleted file go for some of its owners, or for all when none are
// named; true when nobody was left, and its room is free.
func (h *holdings) letGo(key inode, reason keeper.ReleaseReason, owners ...string) (bool, error) {
	h.mu.Lock()
	hold := h.files[key]
	if hold == nil || hold.Deleted.IsZero() {
		h.mu.Unlock()
		return false, nil
	}
	h.changed = true
	if len(owners) > 0 {
		hold.Owners = slices.DeleteFunc(hold.Owners, func(o string) bool { return slices.Contains(owners, o) })
		if len(hold.Owners) > 0 {
			h.mu.Unlock()
			return false, nil
		}
	}
	delete(h.files, key)
	h.released[reason]++
	h.mu.Unlock()
	var err error
	if hold.shelf != "" {
		err = h.shelf.RemoveFD(hold.shelf)
	}
	return true, errors.Join(err, hold.file.Close())
}

// heldSum sums up what is held.
func (h *holdings) heldSum() (GuardHeld, map[keeper.ReleaseReason]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var sum GuardHeld
	for _, hold := range h.files {
		sum.Files++
		sum.Bytes += hold.bytes
		if !hold.Deleted.IsZero() {
			sum.DeletedFiles++
			sum.DeletedBytes += hold.bytes
		}
	}
	return sum, maps.Clone(h.released)
}

// pins are the holds as a scan takes them. QEMU's own files are found without:
// what has no owner can't be anybody's.
func (h *holdings) pins() ([]heldPin, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var pins []heldPin
	for _, hold := range h.files {
		d := descriptor{FD: int(hold.file.Fd())}
		if err := unix.Fstat(d.FD, &d.Stat); err != nil {
			return nil, err
		}
		flags, err := unix.FcntlInt(uintptr(d.FD), unix.F_GETFL, 0)
		if err != nil {
			return nil, err
		}
		d.Flags, d.Link = flags, hold.Path
		pins = append(pins, heldPin{heldFile: heldFile{descriptor: d, PID: os.Getpid(), Process: guardProcess, PinPath: hold.Path, Needed: hold.Needed},
			Owners: slices.Clone(hold.Owners), Meta: hold.meta()})
	}
	return pins, nil
}

// guardProcess is what the guard's own process is called in its scans.
const guardProcess = "os-rescue-guard"

func (m holdMemory) meta() pinMeta {
	return pinMeta{Path: m.Path, Role: m.Role, Format: m.Format, Target: m.Target, Backing: m.Backing, Run: guardRun, Needed: m.Needed}
}

// guardRun takes the place of a run's name in pins that are a guard's.
const guardRun = "guard"

// Hold refuses: whoever wants a file held by more than itself has the keeper.
func (h *holdings) Hold(_, _ string, _ json.RawMessage, f *os.File) error {
	f.Close()
	return errors.New("a guard takes no files")
}

// List returns what is held, the oldest first.
func (h *holdings) List() []keeper.Hold {
	var list []keeper.Hold
	h.lookAtEach(func(hold guardHold, st unix.Stat_t) {
		meta, err := json.Marshal(hold.meta())
		if err != nil {
			return // text and nothing else: it can't fail
		}
		list = append(list, keeper.Hold{Key: hold.inode().Key(), Owners: hold.Owners, Meta: meta, Since: hold.Since,
			Size: st.Size, Allocated: st.Blocks * 512, Links: uint64(st.Nlink)}) //nolint:unconvert // 32 bits on arm64
	})
	slices.SortFunc(list, func(a, b keeper.Hold) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Key, b.Key)) })
	return list
}

// Open returns a held file.
func (h *holdings) Open(key string) (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, hold := range h.files {
		if i.Key() == key {
			return hold.file, nil
		}
	}
	return nil, fmt.Errorf("the file %s is not held: %w", key, fs.ErrNotExist)
}

// Release lets deleted files of an owner go; what still has a name stays held.
func (h *holdings) Release(owner string, keys []string, reason keeper.ReleaseReason) error {
	why := cmp.Or(reason, keeper.ReleasedByHand)
	var err error
	for _, hold := range h.deleted() {
		if slices.Contains(hold.Owners, owner) && (len(keys) == 0 || slices.Contains(keys, hold.inode().Key())) {
			_, lerr := h.letGo(hold.inode(), why, owner)
			err = errors.Join(err, lerr)
		}
	}
	h.poke()
	return err
}

// close closes every file; a shelf keeps its own descriptors.
func (h *holdings) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, hold := range h.files {
		hold.file.Close()
		delete(h.files, key)
	}
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
