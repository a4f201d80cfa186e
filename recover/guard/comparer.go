package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/identity"
)

// comparer finds out whether a copy that was put back, and that was written since, has the content of
// a held file still: Nova's image cache sets the times of the images in use. That may take minutes,
// and nobody waits for it. It is safe for concurrent use.
type comparer struct {
	holds   *holdings
	root    *beneath.Root
	onKnown func()

	mu    sync.Mutex
	known map[comparison]bool
	next  chan comparison // has room for one: another is asked for by the next scan
}

// comparison is a held file, and one at a path, as it was when that was asked for.
type comparison struct {
	held    recover.Inode
	path    string
	at      recover.Inode
	written int64
	changed int64
}

func newComparer(holds *holdings, root *beneath.Root, onKnown func()) *comparer {
	return &comparer{holds: holds, root: root, onKnown: onKnown, known: map[comparison]bool{}, next: make(chan comparison, 1)}
}

// equal is true once it is known that the file at a held file's path, whose status is at, has its
// content; until then it is false, and found out.
func (c *comparer) equal(h guardHold, at identity.Status) bool {
	one := comparison{h.inode(), h.Path, at.Inode(), at.Mtim.Nano(), at.Ctim.Nano()}
	c.mu.Lock()
	equal, known := c.known[one]
	c.mu.Unlock()
	if !known {
		select {
		case c.next <- one:
		default:
		}
	}
	return equal
}

// run compares what is asked for until the context ends.
func (c *comparer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-c.next:
			err := c.compare(ctx, one)
			if err != nil && !errors.Is(err, copier.ErrDiffers) {
				continue // it is asked for again
			}
			c.mu.Lock()
			c.known[one] = err == nil
			c.mu.Unlock()
			c.onKnown()
		}
	}
}

// compare reads both files in full; copier.ErrDiffers when they differ.
func (c *comparer) compare(ctx context.Context, one comparison) error {
	held, err := c.holds.Open(one.held.Key())
	if err != nil {
		return err
	}
	src, err := copier.OpenSource(fmt.Sprintf("/proc/self/fd/%d", held.Fd()), c.holds.isDirect(one.held))
	if err != nil {
		return err
	}
	defer src.File.Close()
	// It may have been let go, and its number be another file's.
	if st, err := identity.OfFile(src.File); err != nil || st.Inode() != one.held {
		return fmt.Errorf("%s is not held any more: %w", one.path, os.ErrNotExist)
	}
	dir, err := c.root.OpenDir(filepath.Dir(one.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	at, err := dir.Open(filepath.Base(one.path), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer at.Close()
	if _, err = copier.Compare(ctx, src, at, copier.CompareOptions{}); err != nil {
		return err
	}
	if st, err := identity.OfFile(at); err != nil || st.Inode() != one.at || st.Mtim.Nano() != one.written {
		return fmt.Errorf("%s is another file by now: %w", one.path, os.ErrNotExist)
	}
	return nil
}
