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
)

// holds is what the keeper holds, and how many clients are connected. Files are
// looked at and closed outside the lock: on a dead NFS server both can hang.
type holds struct {
	mu      sync.Mutex
	files   map[string]*held
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
	return &holds{files: map[string]*held{}, changed: make(chan struct{}, 1)}
}

func (h *holds) poke() {
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
	h.poke()
	return true
}

func (h *holds) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients--
	h.poke()
}

// end makes join refuse from now on, if nobody is there and nothing is held.
func (h *holds) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ending = h.clients == 0 && len(h.files) == 0
	return h.ending
}

// done is end for a keeper that has held something: it has done its work.
func (h *holds) done() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ending = h.used && h.clients == 0 && len(h.files) == 0
	return h.ending
}

// waitIdle returns when nothing is held and nobody is connected: at once after
// the last release, and after the time given in a keeper that never held
// anything, whose first client may still be on its way. It returns too when the
// context has ended. From then on nobody can join.
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

// Hold takes the file over, or closes it.
func (h *holds) Hold(owner, key string, meta json.RawMessage, f *os.File) error {
	if err := usable(f, key); err != nil {
		f.Close()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	hold := h.files[key]
	if hold == nil {
		hold = &held{file: f, owners: map[string]bool{}, since: time.Now()}
		h.files[key] = hold
		h.used = true
	} else {
		defer f.Close() // one more open of a file that stays open: nothing to wait for
	}
	hold.owners[owner] = true
	if meta != nil {
		hold.meta = meta
	}
	return nil
}

// usable refuses what would not keep the file, or would do more than that.
func usable(f *os.File, key string) error {
	st, err := stat(f)
	if err != nil {
		return err
	}
	var flags int
	if err := Control(f, func(fd int) (err error) {
		flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return err
	}); err != nil {
		return err
	}
	switch {
	case keyOf(st) != key:
		return fmt.Errorf("the descriptor is of the file %s, not %s", keyOf(st), key)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("the descriptor is not of a regular file")
	case flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_PATH != 0:
		return errors.New("the descriptor is not open for reading, and for that alone")
	}
	return nil
}

// List returns the holds, the oldest first.
func (h *holds) List() []Hold {
	h.mu.Lock()
	var list []Hold
	var files []*os.File
	for key, hold := range h.files {
		list = append(list, Hold{Key: key, Owners: owners(hold), Meta: hold.meta, Since: hold.since})
		files = append(files, hold.file)
	}
	h.mu.Unlock()
	for i := range list {
		if st, err := stat(files[i]); err == nil {
			list[i].Size, list[i].Allocated, list[i].Links = st.Size, st.Blocks*512, uint64(st.Nlink) //nolint:unconvert // 32 bits on arm64
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

func (h *holds) Open(key string) (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hold := h.files[key]
	if hold == nil {
		return nil, fmt.Errorf("the file %s is not held: %w", key, fs.ErrNotExist)
	}
	return hold.file, nil
}

// Release returns once what nobody owns any more is closed.
func (h *holds) Release(owner string, keys []string, _ ReleaseReason) error {
	h.mu.Lock()
	var closing []*os.File
	for key, hold := range h.files {
		if !hold.owners[owner] || len(keys) > 0 && !slices.Contains(keys, key) {
			continue
		}
		delete(hold.owners, owner)
		if len(hold.owners) == 0 {
			delete(h.files, key)
			closing = append(closing, hold.file)
		}
	}
	h.mu.Unlock()
	var errs []error
	for _, f := range closing {
		errs = append(errs, f.Close())
	}
	h.poke()
	return errors.Join(errs...)
}
