package guard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// The holdings as others see them: clients of the guard's socket (the methods of
// keeper.Holdings), and the guard's own scans.

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

// Open returns a held file, which stays the holdings'. fs.ErrNotExist.
func (h *holdings) Open(key string) (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, hold := range h.files {
		if keeper.Names([]string{key}, i) {
			return hold.file, nil
		}
	}
	return nil, fmt.Errorf("the file %s is not held: %w", key, fs.ErrNotExist)
}

// Release lets deleted files of an owner go, all when no keys are named; what still
// has a name stays held, and so does what a process writes, unless it is back.
func (h *holdings) Release(owner string, keys []string, reason keeper.ReleaseReason) error {
	why := cmp.Or(reason, keeper.ReleasedByHand)
	var err error
	var w writers
	if reason == keeper.ReleasedProven {
		h.noteDeleted(keys)
	}
	for _, hold := range h.deletedOf(owner) {
		if len(keys) == 0 || keeper.Names(keys, hold.inode()) {
			if werr := w.mayRelease(hold, why); werr != nil {
				err = errors.Join(err, werr)
				continue
			}
			_, lerr := h.letGo(hold.inode(), why, owner)
			err = errors.Join(err, lerr)
		}
	}
	h.onRelease()
	return err
}

// noteDeleted notes of those of the files that have no name any more that they were deleted: a run that says
// so is faster than the tree's events.
func (h *holdings) noteDeleted(keys []string) {
	for _, hold := range h.all() {
		if !hold.Deleted.IsZero() || !keeper.Names(keys, hold.inode()) {
			continue
		}
		if st, err := identity.OfFile(hold.file); err == nil && st.Nlink == 0 {
			h.update(hold.inode(), func(now *guardHold) { now.Deleted = time.Now().UTC() })
		}
	}
}

// pins are the holds as a scan takes them. QEMU's own files are found without:
// what has no owner can't be anybody's.
func (h *holdings) pins() ([]pin.Held, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var pins []pin.Held
	for _, hold := range h.files {
		d := procfs.Descriptor{FD: int(hold.file.Fd())}
		var err error
		if d.Stat, err = identity.Of(d.FD); err != nil {
			return nil, err
		}
		flags, err := unix.FcntlInt(uintptr(d.FD), unix.F_GETFL, 0)
		if err != nil {
			return nil, err
		}
		d.Flags = flags
		// As others see it: a name that it has now, or how it lost its own.
		if d.Link, err = os.Readlink(fmt.Sprintf("%s/self/fd/%d", procfs.Dir, d.FD)); err != nil {
			return nil, err
		}
		held := procfs.HeldFile{Descriptor: d, PID: os.Getpid(), Process: pin.GuardProcess}
		pins = append(pins, pin.Held{HeldFile: held, Owners: slices.Clone(hold.Owners), Meta: hold.meta()})
	}
	return pins, nil
}
