package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// compareTime is how long all comparisons of one scan may take together, where its caller gives
// it three times as long.
const compareTime = time.Minute

// thorough is what a scan looks at for somebody who waits for it: the owners of
// directories, and the content of read-only files that were replaced.
type thorough struct {
	root      *beneath.Root
	table     *owners.Table // nil when a name of the table is unknown here
	until     time.Time     // comparisons end then
	twins     *twins
	published func() (runs.Published, error)
}

// twin is a held inode and the file that stands at its path, when that was written and changed last.
type twin struct {
	held, at         recover.Inode
	written, changed int64
}

// twins are the results of comparisons, which may take minutes: nil, or copier.ErrDiffers. It is safe
// for concurrent use.
type twins struct {
	mu    sync.Mutex
	known map[twin]error
}

func newTwins() *twins { return &twins{known: map[twin]error{}} }

func (t *twins) get(key twin) (known bool, differs error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	differs, known = t.known[key]
	return known, differs
}

func (t *twins) set(key twin, differs error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[key] = differs
}

// errNotCompared: there was no time left for the comparison.
var errNotCompared = errors.New("the time for the comparisons of one scan is over")

// Thorough returns a scanner that also looks at what takes time. It names the directories
// that are not as the table of owners says, whose names it asks the user database for. And
// it compares a file that the guest does not write with another one of its size at its path,
// both in full and the held one as QEMU sees it: the same bytes are no conflict. So it does with
// one that a run has put back, and that was written since. All comparisons of a scan take a minute at
// most, and a third of the time that its caller has; what is not compared by then is said.
//
// It is for an operator who waits. A run pins first, and a guard looks again and again.
func (s *Scanner) Thorough() *Scanner {
	t := *s
	t.thorough = true
	return &t
}

// newThorough begins a thorough look; the caller closes it.
func newThorough(
	ctx context.Context, settings recover.Settings, twins *twins, published func() (runs.Published, error),
) (*thorough, error) {
	root, err := beneath.OpenRoot(settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: open the root %s: %w", recover.ErrUnusable, settings.Root, err)
	}
	t := &thorough{root: root, until: time.Now().Add(compareTime), twins: twins, published: published}
	if end, ok := ctx.Deadline(); ok && time.Until(end)/3 < compareTime {
		t.until = time.Now().Add(time.Until(end) / 3)
	}
	if t.table, err = owners.Resolve(settings, root); err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("the owners of directories can't be looked at")
	}
	return t, nil
}

func (t *thorough) close() { t.root.Close() }

// look finds out what a quick scan does not, about an instance whose files have their states.
// tree is the "/" in which its QEMU looks paths up. The error is the context's.
func (t *thorough) look(ctx context.Context, i *recover.Instance, tree procfs.Root) error {
	for n := range i.Files {
		if err := t.compare(ctx, &i.Files[n], tree); err != nil {
			return err
		}
	}
	for n := range i.Superseded {
		if err := t.compare(ctx, &i.Superseded[n], tree); err != nil {
			return err
		}
	}
	i.Superseded = slices.DeleteFunc(i.Superseded, func(f recover.File) bool { return f.Proven })
	i.Directories = t.astray(i.Files)
	return nil
}

// astray returns the directories of an instance's files that are not as the table of
// owners says.
func (t *thorough) astray(files []recover.File) []recover.Directory {
	if t.table == nil {
		return nil
	}
	paths := make([]string, len(files))
	for n, f := range files {
		paths[n] = f.Path
	}
	return t.table.Astray(t.root, t.table.Covered(paths))
}

// compare finds out whether the file at the path of a replaced file has the bytes of the
// held one, and says so in the file's reason. tree is the "/" in which QEMU looks paths up.
func (t *thorough) compare(ctx context.Context, f *recover.File, tree procfs.Root) error {
	if !isComparable(*f) || tree.IsSymlink(f.Path) {
		return nil
	}
	st, err := tree.Stat(f.Path)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != f.Size {
		return nil //nolint:nilerr // it has gone since it was classified: the next scan sees that
	}
	if f.Proven {
		copies, err := t.published()
		if err != nil || copies.IsUnwritten(*f, st, true) {
			return err
		}
	}
	key := twin{f.Identity(), st.Inode(), st.Mtim.Nano(), st.Ctim.Nano()}
	known, differs := t.twins.get(key)
	if !known {
		differs = t.differs(ctx, *f, tree)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case differs == nil:
		t.twins.set(key, nil)
		f.Proven, f.Remedy = true, ""
		f.Reason = "another file stands at its path that has the same bytes; the old inode stays open until the next start"
	case errors.Is(differs, copier.ErrDiffers):
		t.twins.set(key, differs)
		if f.Proven {
			f.Proven, f.Remedy = false, recover.RemedyReplace
			f.Reason = "what was put back at its path was written since"
		}
		f.Reason += ", and it differs: " + differs.Error()
	case f.Proven:
		f.Reason += "; it was written since, and the two were not compared: " + differs.Error()
	default:
		f.Reason += "; the two were not compared, which a run does: " + differs.Error()
	}
	return nil
}

// isComparable is true for a replaced file that nobody writes.
func isComparable(f recover.File) bool {
	if f.State != recover.FileReplaced || f.Writable {
		return false
	}
	for _, h := range f.Holders {
		if h.Writable {
			return false
		}
	}
	return f.Role == recover.RoleBacking || f.Role == recover.RoleConfigDrive || f.Role == recover.RoleDisk
}

// differs reads both files in full. nil when they are equal, copier.ErrDiffers when not.
func (t *thorough) differs(ctx context.Context, f recover.File, tree procfs.Root) error {
	if !time.Now().Before(t.until) {
		return errNotCompared
	}
	ctx, cancel := context.WithDeadlineCause(ctx, t.until, errNotCompared)
	defer cancel()
	src, err := pin.Open(f)
	if err != nil {
		return err
	}
	defer src.File.Close()
	at, err := tree.Open(f.Path)
	if err != nil {
		return err
	}
	defer at.Close()
	_, err = copier.Compare(ctx, src, at, copier.CompareOptions{})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
