package guard

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Shelf keeps descriptors for a guard while it is restarted, however it ended:
// systemd's descriptor store (sd_pid_notify_with_fds(3)).
type Shelf interface {
	// StoreFD puts a descriptor on the shelf under a name, which is ASCII without a colon
	// and used once. The descriptor stays the caller's.
	StoreFD(name string, f *os.File) error
	// RemoveFD takes the descriptor of that name off the shelf: only then can the file be
	// freed.
	RemoveFD(name string) error
}

// holdings are all files that a guard holds. It is safe for concurrent use.
type holdings struct {
	shelf     Shelf  // nil: there is none
	onRelease func() // called when a client has released something
	bounds    bounds

	mu         sync.Mutex
	files      map[recover.Inode]*guardHold
	remembered map[recover.Inode]holdMemory // of an earlier life, for files that are found again
	changed    bool                         // since it was saved
	released   map[keeper.ReleaseReason]int
	partings   partings
	shelved    shelved

	// onTwins is called when the keeper has to be given something, or to let something go; nil: nobody minds.
	onTwins func()
}

func newHoldings(shelf Shelf, onRelease func()) *holdings {
	return &holdings{shelf: shelf, onRelease: onRelease, bounds: boundsNow(), files: map[recover.Inode]*guardHold{},
		remembered: map[recover.Inode]holdMemory{},
		released:   map[keeper.ReleaseReason]int{}, partings: partings{}}
}

// remember notes what an earlier life knew of its files, by inode, before any is added.
func (h *holdings) remember(memory map[recover.Inode]holdMemory) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remembered = memory
}

// add takes a file over, under what is known of it, and closes it when it is held
// already. An error is the shelf's: the file is held all the same.
func (h *holdings) add(f *os.File, m holdMemory) error {
	hold, err := newHold(f, m)
	if err != nil {
		f.Close()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.files[hold.inode()] != nil {
		f.Close()
		return nil
	}
	if old, ok := h.recall(hold.inode()); ok && old.Path == hold.Path {
		hold.Since, hold.Deleted, hold.Needed = old.Since, old.Deleted, old.Needed
		hold.Belongs, hold.Retired, hold.Opened = cmp.Or(old.Belongs, hold.Belongs), old.Retired, old.Opened || hold.Opened
		for _, o := range old.Owners {
			hold.addOwner(o)
		}
		delete(h.remembered, old.inode())
	}
	h.files[hold.inode()] = hold
	delete(h.partings, hold.inode())
	h.changed = true
	return h.put(hold)
}

// recall returns what an earlier life knew of a file that is held now. One of a release
// that knew no births knew it by its number.
func (h *holdings) recall(key recover.Inode) (holdMemory, bool) {
	m, ok := h.remembered[key]
	if !ok {
		m, ok = h.remembered[key.Unborn()]
	}
	return m, ok
}

// rememberedNamed are the files that an earlier life held with a name, that isNamed, and that were
// not found again yet.
func (h *holdings) rememberedNamed() []holdMemory {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []holdMemory
	for _, m := range h.remembered {
		if m.isNamed() && m.Deleted.IsZero() {
			list = append(list, m.copy())
		}
	}
	return list
}

// tally counts what is held against the bounds.
func (h *holdings) tally() *tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := newTally(h.bounds)
	h.shelved = shelved{}
	for _, hold := range h.files {
		t.add(hold.holdMemory)
		if hold.shelf != "" && !hold.isNamed() {
			*h.shelved.kind(hold)++
		}
	}
	return t
}

// isFull is true when no further file may be held.
func (h *holdings) isFull() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.files) >= h.bounds.total()
}

// put puts a hold's descriptor on the shelf. Of those that nobody names it takes some: a
// guard that was killed has lost the others if they were deleted meanwhile.
func (h *holdings) put(hold *guardHold) error {
	if h.shelf == nil || hold.shelf != "" {
		return nil
	}
	if !hold.isNamed() {
		if !h.shelved.hasRoom(hold) {
			return nil
		}
		*h.shelved.kind(hold)++
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

// adopt takes over a descriptor that an earlier life had put on the shelf, and
// closes it if it is held already or can't be used.
func (h *holdings) adopt(name string, f *os.File) error {
	link, unlinked, err := identifyFile(f)
	var hold *guardHold
	if err == nil {
		hold, err = newHold(f, holdMemory{})
	}
	if err != nil {
		f.Close()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := hold.inode()
	if old := h.files[key]; old != nil {
		f.Close()
		if old.shelf == name {
			return nil
		}
		return h.shelf.RemoveFD(name)
	}
	if m, ok := h.recall(key); ok {
		delete(h.remembered, m.inode())
		m.Birth = key.Birth
		hold.holdMemory = m
	} else {
		hold.Path, hold.Role = procfs.PathsOf(link, unlinked)[0], recover.RoleOther
	}
	hold.shelf = name
	h.files[key] = hold
	h.changed = true
	return nil
}

// identifyFile returns the link of a regular file's descriptor as the kernel shows
// it, and whether the file has no name any more.
func identifyFile(f *os.File) (link string, unlinked bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", false, errors.New("it is no regular file")
	}
	link, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return link, st.Nlink == 0, err
}

// makeDirect replaces a descriptor by one with O_DIRECT, as the file's QEMU has it:
// a buffered read could return older data.
func (h *holdings) makeDirect(key recover.Inode, f *os.File) error {
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

// isDirect is true for a held file that is open with O_DIRECT.
func (h *holdings) isDirect(key recover.Inode) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[key] != nil && h.files[key].direct
}

// all returns copies of every hold.
func (h *holdings) all() []guardHold {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]guardHold, 0, len(h.files))
	for _, hold := range h.files {
		all = append(all, hold.copy())
	}
	return all
}

// has is true for a file that is held.
func (h *holdings) has(key recover.Inode) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[key] != nil
}

// lookAtEach calls do with a copy of every hold, and what its file is like now.
// Files are looked at outside the lock: on a dead server that can hang.
func (h *holdings) lookAtEach(do func(hold guardHold, st unix.Stat_t)) {
	for _, hold := range h.all() {
		var st unix.Stat_t
		// An error means that it was let go since.
		if keeper.Control(hold.file, func(fd int) error { return unix.Fstat(fd, &st) }) == nil && st.Dev == hold.Device && st.Ino == hold.Inode {
			do(hold, st)
		}
	}
}

// update changes what is known of a hold; false when it is not held any more.
func (h *holdings) update(key recover.Inode, do func(*guardHold)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	hold := h.files[key]
	if hold == nil {
		return false
	}
	h.change(hold, do)
	return true
}

// shelve puts what is named by now on the shelf.
func (h *holdings) shelve() error {
	var errs error
	for _, hold := range h.all() {
		if hold.shelf != "" || !hold.isNamed() {
			continue
		}
		h.mu.Lock() // not for long: a status waits
		if now := h.files[hold.inode()]; now != nil {
			errs = errors.Join(errs, h.put(now))
		}
		h.mu.Unlock()
	}
	return errs
}

// updateEach changes what is known of every hold.
func (h *holdings) updateEach(do func(*guardHold)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hold := range h.files {
		h.change(hold, do)
	}
}

func (h *holdings) change(hold *guardHold, do func(*guardHold)) {
	before := hold.holdMemory.copy()
	do(hold)
	if !hold.same(before) {
		h.changed = true
	}
	if hold.Needed != before.Needed {
		h.noteTwins()
	}
}

// need marks a deleted file as one that an instance which exists has lost.
func (h *holdings) need(key recover.Inode) {
	h.update(key, func(hold *guardHold) {
		hold.Needed = true
		if hold.Deleted.IsZero() { // the full scan saw it before the tree scan did
			hold.Deleted = time.Now().UTC()
		}
	})
}

// retire notes that the domain of an instance was undefined after its files were deleted,
// also of those whose deletion was not noticed yet.
func (h *holdings) retire(uuid string) {
	for _, hold := range h.all() {
		if !hold.isOf(uuid) || slices.Contains(hold.Retired, uuid) {
			continue
		}
		// An error means that it was let go since, or that its server does not answer.
		if st, err := identity.OfFile(hold.file); err != nil || st.Nlink > 0 {
			continue
		}
		h.update(hold.inode(), func(hold *guardHold) {
			hold.Retired = append(slices.Clone(hold.Retired), uuid)
		})
	}
}

// owners are the instances that a file is held for.
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

// deletedOf returns copies of an instance's holds whose files have no name.
func (h *holdings) deletedOf(uuid string) []guardHold {
	return slices.DeleteFunc(h.deleted(), func(hold guardHold) bool { return !hold.isOf(uuid) })
}

// of returns copies of an instance's holds, deleted or not.
func (h *holdings) of(uuid string) []guardHold {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []guardHold
	for _, hold := range h.files {
		if hold.isOf(uuid) {
			list = append(list, hold.copy())
		}
	}
	return list
}

// letGo lets a deleted file go for some of its owners, or for all when none are
// named; true when nobody was left, and the file was closed.
func (h *holdings) letGo(key recover.Inode, reason keeper.ReleaseReason, owners ...string) (bool, error) {
	h.mu.Lock()
	hold := h.files[key]
	if hold == nil || hold.Deleted.IsZero() {
		h.mu.Unlock()
		return false, nil
	}
	h.changed = true
	h.noteTwins()
	if len(owners) > 0 {
		hold.Owners = slices.DeleteFunc(hold.Owners, func(o string) bool { return slices.Contains(owners, o) })
		if len(hold.Owners) > 0 {
			h.partings.note(key, owners...)
			h.mu.Unlock()
			return false, nil
		}
	}
	delete(h.files, key)
	h.partings.note(key)
	h.released[reason]++
	h.mu.Unlock()
	var err error
	if hold.shelf != "" {
		err = h.shelf.RemoveFD(hold.shelf)
	}
	return true, errors.Join(err, hold.file.Close())
}

func (h *holdings) noteTwins() {
	if h.onTwins != nil {
		h.onTwins()
	}
}

// parted does something with what was let go.
func (h *holdings) parted(do func(partings)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do(h.partings)
}

// isLetGo is true for a file that was let go for an instance since the last scan, or that the keeper may
// hold for it still.
func (h *holdings) isLetGo(key recover.Inode, uuid string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.partings[key]
	return p != nil && p.isFor(uuid)
}

// sum sums up what is held, and what was let go since the start.
func (h *holdings) sum() (Held, map[keeper.ReleaseReason]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var sum Held
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

// close closes every file; a shelf keeps its own descriptors.
func (h *holdings) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, hold := range h.files {
		hold.file.Close()
		delete(h.files, key)
	}
}
