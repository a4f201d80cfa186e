package guard

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/treewatch"
)

// treeScan looks whether a held file has lost its name, and holds what is new in
// the instances directory. It asks nobody but the file system, so that a hypervisor
// that hangs delays no alarm.
type treeScan struct {
	root      *beneath.Root
	path      string // the instances directory
	watch     *treewatch.Watcher
	holds     *holdings
	holdable  *holdable
	records   *records
	incidents *incidents
	last      *lastScan
	problems  *problems
	save      func() error // brings the holdings to the disk
	onChange  func()       // called when a full scan has more to find out

	noticing sync.Mutex   // held while the held files are looked at
	running  sync.Mutex   // held by a scan, after that
	beyond   atomic.Int64 // files that the last one found and that are not held: there are too many
}

// notice looks whether a held file has lost its name, and begins what follows from that. It waits
// for no walk through the tree.
func (t *treeScan) notice(ctx context.Context) {
	t.noticing.Lock()
	defer t.noticing.Unlock()
	if gone := t.newlyDeleted(); len(gone) > 0 {
		t.alarm(ctx, gone)
		t.onChange()
	}
}

// run scans the tree once.
func (t *treeScan) run(ctx context.Context) {
	t.notice(ctx)
	t.running.Lock()
	defer t.running.Unlock()
	t.holdTree(ctx)
	err := t.save()
	if err != nil {
		err = fmt.Errorf("the list of held files can't be written, and after a restart the guard could not tell them apart: %w", err)
	}
	t.problems.set("save", err)
}

// runOnChanges scans the tree whenever a name in it has changed. After a burst there
// is one scan at once, and one more when it is quiet.
func (t *treeScan) runOnChanges(ctx context.Context) {
	const quiet = 50 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.watch.C():
		}
		begun := time.Now()
		t.run(ctx)
		recover.Pause(ctx, max(quiet, time.Since(begun))) // a flood of changes does not take a processor
	}
}

// newlyDeleted notes and returns the holds that have lost their name since the
// last scan.
func (t *treeScan) newlyDeleted() []guardHold {
	var gone []guardHold
	t.holds.lookAtEach(func(h guardHold, st unix.Stat_t) {
		deleted := st.Nlink == 0
		if bytes := st.Blocks * 512; deleted == !h.Deleted.IsZero() && bytes == h.bytes {
			return
		}
		fresh := false
		t.holds.update(h.inode(), func(h *guardHold) {
			h.bytes = st.Blocks * 512
			fresh = deleted && h.Deleted.IsZero()
			if fresh {
				h.Deleted = time.Now().UTC()
			} else if !deleted {
				h.Deleted, h.Needed, h.Retired = time.Time{}, false, nil // linked again, from another name
			}
		})
		if fresh {
			gone = append(gone, h)
		}
	})
	return gone
}

// alarm begins the incidents of instances whose own QEMU has a file open that is
// deleted now: that takes no word of libvirt's or Nova's.
func (t *treeScan) alarm(ctx context.Context, gone []guardHold) {
	begun := map[string]bool{} // once, however many files it has lost
	for _, h := range gone {
		for _, uuid := range h.Owners {
			i, known := t.last.instance(uuid)
			if !known || begun[uuid] {
				continue
			}
			// Further files that an instance loses in an incident are held with the rest.
			if _, already := t.incidents.get(uuid); already || i.PID != 0 && isInUse(i, h.inode()) {
				t.incidents.begin(ctx, i)
				begun[uuid] = true
			}
		}
	}
}

// isInUse is true while the QEMU or the virtlogd that had an instance's essential
// file open at the last full scan has it open still.
func isInUse(i recover.Instance, key recover.Inode) bool {
	for _, f := range i.Files {
		if f.Identity() != key || !isEssential(f.Role) {
			continue
		}
		for _, h := range f.Holders {
			if h.PID != i.PID && h.Process != procfs.Virtlogd {
				continue
			}
			st, err := identity.At(unix.AT_FDCWD, fmt.Sprintf("%s/%d/fd/%d", procfs.Dir, h.PID, h.FD), 0)
			if err == nil && st.Inode() == key {
				return true
			}
		}
	}
	return false
}

// holdTree holds what is new in the tree, first what libvirt names, and notes what was renamed.
func (t *treeScan) holdTree(ctx context.Context) {
	named, known := t.named()
	w := &treeHolding{treeScan: t, tally: t.holds.tally(), known: known, unheld: faults{}}
	for _, m := range named {
		w.holdNamed(m)
	}
	isKnown := func(uuid string) bool { return w.known[uuid] }
	dirs, err := walkTree(t.root, t.path, isKnown, w.visit, w.tally.skip)
	t.problems.replace(aboutTree, w.unheld)
	t.noteBeyond(ctx, w.tally)
	dirs = append(dirs, filepath.Dir(t.path))
	for n, dir := range dirs {
		dirs[n] = filepath.Join(t.root.String(), dir)
	}
	t.watch.Set(dirs)
	t.problems.set("watch", t.watch.Problem())
	if err != nil {
		err = fmt.Errorf("the instances can't be walked through: %w", err)
	}
	t.problems.set("tree", err)
	err = nil
	if w.refused {
		err = errors.New("nothing can be held below " + t.path + ": on this file system (NFS?) a deleted file that is open keeps a " +
			"hidden name, which would keep Nova from deleting instances. Deletions are still noticed")
	}
	t.problems.set("silly", err)
	if w.held > 0 {
		zerolog.Ctx(ctx).Debug().Int("files", w.held).Msg("held")
		t.onChange() // whose they are, and what they are to their instances
	}
}

// noteBeyond notes that there are more files than are held, and logs it when that begins. It is a
// problem where a single directory has too many.
func (t *treeScan) noteBeyond(ctx context.Context, c *tally) {
	if before := t.beyond.Swap(int64(c.beyond)); before == 0 && c.beyond > 0 {
		zerolog.Ctx(ctx).Warn().Int("files", c.beyond).Str("example", c.example).Msg("there are more files than are held")
	}
	var err error
	if c.over != "" {
		err = fmt.Errorf("%d or more files and directories below %s are not held: libvirt names none of them, and %s is in a directory with "+
			"more than the guard looks at or holds (%d files of an instance, %d of _base). Who makes them?",
			c.beyond, t.path, c.over, c.ofOwner, c.bases)
	}
	t.problems.set("beyond", err)
}
