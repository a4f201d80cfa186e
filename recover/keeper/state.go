package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// holds are the keeper's held files, and the number of its clients. fstat and close
// of a file happen outside the lock, because both can hang on a dead NFS server.
type holds struct {
	mu      sync.Mutex
	files   map[recover.Inode]*held
	clients int
	used    bool // something has been held
	ending  bool
	changed chan struct{} // has room for one; filled when something may have become idle
}

type held struct {
	file   *os.File
	owners map[string]bool
	meta   json.RawMessage
	since  time.Time
}

func newHolds() *holds {
	return &holds{files: map[recover.Inode]*held{}, changed: make(chan struct{}, 1)}
}

// onChange wakes waitIdle.
func (h *holds) onChange() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// join counts a client in; false when the keeper is ending.
func (h *holds) join() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending {
		return false
	}
	h.clients++
	h.onChange()
	return true
}

func (h *holds) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients--
	h.onChange()
}

// end makes join refuse from now on, if no client is connected and nothing is held.
func (h *holds) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ending = h.clients == 0 && len(h.files) == 0
	return h.ending
}

// done is end for a keeper that has held something and so has done its work.
func (h *holds) done() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ending = h.used && h.clients == 0 && len(h.files) == 0
	return h.ending
}

// waitIdle returns when nothing is held and no client is connected. In a keeper that
// never held anything it first waits for the idle time, because its first client may
// still be on its way. It also returns when the context has ended. From then on
// nobody can join.
func (h *holds) waitIdle(ctx context.Context, idle time.Duration) {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.changed:
			if h.done() {
				return
			}
			timer.Reset(idle)
		case <-timer.C:
			if h.end() {
				return
			}
			// Busy: the next change starts the timer again.
		}
	}
}

func (h *holds) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.files)
}

// Hold implements Holdings.
func (h *holds) Hold(owner, key string, meta json.RawMessage, f *os.File) error {
	inode, err := usable(f, key)
	if err != nil {
		f.Close()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	hold := h.files[inode]
	if hold == nil {
		hold = &held{file: f, owners: map[string]bool{}, since: time.Now()}
		h.files[inode] = hold
		h.used = true
	} else {
		defer f.Close() // the file stays open by another descriptor, so this can't hang
	}
	hold.owners[owner] = true
	if meta != nil {
		hold.meta = meta
	}
	return nil
}

// usable refuses a descriptor that would not keep the file, or that can do more. It returns
// the file's identity.
func usable(f *os.File, key string) (recover.Inode, error) {
	st, err := stat(f)
	if err != nil {
		return recover.Inode{}, err
	}
	inode := st.Inode()
	var flags int
	if err := Control(f, func(fd int) (err error) {
		flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return err
	}); err != nil {
		return inode, err
	}
	switch {
	case !names(key, inode):
		return inode, fmt.Errorf("the descriptor is of the file %s, not %s", inode.Key(), key)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return inode, errors.New("the descriptor is not of a regular file")
	case flags&unix.O_ACCMODE == unix.O_RDWR && st.Nlink == 0:
		// A duplicate of QEMU's own, of a file that can't be opened anew. It keeps QEMU's locks on
		// an inode that no QEMU will ever start on again.
	case flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_PATH != 0:
		return inode, errors.New("the descriptor is not open for reading only")
	}
	return inode, nil
}

// List implements Holdings.
func (h *holds) List() []Hold {
	h.mu.Lock()
	var list []Hold
	var files []*os.File
	for inode, hold := range h.files {
		list = append(list, Hold{Key: inode.Key(), Owners: owners(hold), Meta: hold.meta, Since: hold.since})
		files = append(files, hold.file)
	}
	h.mu.Unlock()
	for i := range list {
		if st, err := stat(files[i]); err == nil {
			list[i].Size = st.Size
			list[i].Allocated = st.Blocks * 512
			list[i].Links = uint64(st.Nlink) //nolint:unconvert // 32 bits on arm64
		}
	}
	slices.SortFunc(list, func(a, b Hold) int {
		return a.Since.Compare(b.Since)*2 + strings.Compare(a.Key, b.Key)
	})
	return list
}

func owners(hold *held) []string {
	var names []string
	for owner := range hold.owners {
		names = append(names, owner)
	}
	slices.Sort(names)
	return names
}

// Open implements Holdings.
func (h *holds) Open(key string) (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for inode, hold := range h.files {
		if names(key, inode) {
			return hold.file, nil
		}
	}
	return nil, fmt.Errorf("the file %s is not held: %w", key, fs.ErrNotExist)
}

// Release implements Holdings. It returns when the files without an owner are closed.
func (h *holds) Release(owner string, keys []string, _ ReleaseReason) error {
	h.mu.Lock()
	var closing []*os.File
	for inode, hold := range h.files {
		if !hold.owners[owner] || len(keys) > 0 && !Names(keys, inode) {
			continue
		}
		delete(hold.owners, owner)
		if len(hold.owners) == 0 {
			delete(h.files, inode)
			closing = append(closing, hold.file)
		}
	}
	h.mu.Unlock()
	var errs []error
	for _, f := range closing {
		errs = append(errs, f.Close())
	}
	h.onChange()
	return errors.Join(errs...)
}
