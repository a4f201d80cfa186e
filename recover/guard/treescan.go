package guard

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/scan"
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
	incidents *incidents
	last      *lastScan
	problems  *problems
	save      func() error // brings the holdings to the disk
	onChange  func()       // called when a full scan has more to find out

	running sync.Mutex // held by a scan
}

// run scans the tree once.
func (t *treeScan) run(ctx context.Context) {
	t.running.Lock()
	defer t.running.Unlock()
	gone := t.newlyDeleted()
	if len(gone) > 0 {
		t.alarm(ctx, gone)
		t.onChange()
	}
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
		t.run(ctx)
		recover.Pause(ctx, quiet)
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
				h.Deleted, h.Needed = time.Time{}, false // linked again, from another name
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
	for _, h := range gone {
		for _, uuid := range h.Owners {
			i, known := t.last.instance(uuid)
			if !known {
				continue
			}
			// Further files that an instance loses in an incident are held with the rest.
			if _, already := t.incidents.get(uuid); already || i.PID != 0 && isInUse(i, h.inode()) {
				t.incidents.begin(ctx, i)
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
			if h.PID != i.PID && h.Process != scan.Virtlogd {
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

// holdTree walks the tree, holds what is new and notes what was renamed.
func (t *treeScan) holdTree(ctx context.Context) {
	held, refused := 0, false
	unheld := map[string]error{} // by path
	dirs, err := walkTree(t.root, t.path, func(f treeFile, dir *beneath.Dir, name string) {
		known := t.holds.update(f.inode, func(h *guardHold) {
			h.Path = f.path
			h.addOwner(f.owner)
		})
		switch {
		case known, f.ofRun: // a mirror has its disk's name for a moment: of that it is held
		case !t.holdable.mayHold(dir):
			refused = true
		default:
			switch err := t.hold(f, dir, name); {
			case err == nil:
				held++
			case !vanished(err):
				unheld[f.path] = fmt.Errorf("%s can't be held: %w", f.path, err)
			}
		}
	})
	t.problems.replace("tree-open", unheld)
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
	if refused {
		err = errors.New("nothing can be held below " + t.path + ": on this file system (NFS?) a deleted file that is open keeps a " +
			"hidden name, which would keep Nova from deleting instances. Deletions are still noticed")
	}
	t.problems.set("silly", err)
	if held > 0 {
		zerolog.Ctx(ctx).Debug().Int("files", held).Msg("held")
		t.onChange() // whose they are, and what they are to their instances
	}
}

// hold holds a file of the tree.
func (t *treeScan) hold(f treeFile, dir *beneath.Dir, name string) error {
	file, err := openTreeFile(dir, name)
	if err != nil {
		return err
	}
	m := holdMemory{Path: f.path, Role: recover.RoleOther}
	m.addOwner(f.owner)
	if f.owner != "" && name == "console.log" { // it may be gone before a full scan says what it is
		m.Role = recover.RoleConsoleLog
	}
	if err := t.holds.add(file, m); err != nil {
		t.problems.set("shelf", err)
	}
	return nil
}
