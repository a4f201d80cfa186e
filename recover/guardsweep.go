package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// sweep looks whether a held file has lost its name, and holds what is new in the
// tree. It asks nobody but the file system, so that a hypervisor that hangs delays
// no alarm.
func (g *Guard) sweep(ctx context.Context) {
	g.sweeping.Lock()
	defer g.sweeping.Unlock()
	gone := g.namelessHolds()
	if len(gone) > 0 {
		g.alarm(ctx, gone)
		g.lookSoon()
	}
	g.holdTree(ctx)
	if err := g.save(); err != nil {
		g.problem("save", fmt.Errorf("what is held can't be noted, and would not be told apart after a restart: %w", err))
	} else {
		g.problem("save", nil)
	}
}

// namelessHolds notes and returns the holds that have lost their name since the
// last look.
func (g *Guard) namelessHolds() []guardHold {
	var gone []guardHold
	g.holds.lookAtEach(func(h guardHold, st unix.Stat_t) {
		deleted := st.Nlink == 0
		if bytes := st.Blocks * 512; deleted == !h.Deleted.IsZero() && bytes == h.bytes {
			return
		}
		fresh := false
		g.holds.update(h.inode(), func(h *guardHold) {
			h.bytes = st.Blocks * 512
			fresh = deleted && h.Deleted.IsZero()
			if fresh {
				h.Deleted = time.Now().UTC()
			} else if !deleted {
				h.Deleted, h.Needed = time.Time{}, false // linked again, from another name
			}
		})
		if fresh {
			h.Deleted = time.Now().UTC()
			gone = append(gone, h)
		}
	})
	return gone
}

// alarm begins the incidents of instances whose own QEMU has a file open that is
// deleted now: no word of libvirt's or Nova's is needed for that.
func (g *Guard) alarm(ctx context.Context, gone []guardHold) {
	for _, h := range gone {
		for _, uuid := range h.Owners {
			g.mu.Lock()
			i := findInstance(g.report, uuid)
			g.mu.Unlock()
			// What an instance in need loses besides is held with the rest.
			if i != nil && (g.incident(uuid).UUID != "" || i.PID != 0 && inUseBy(*i, h.inode())) {
				g.begin(ctx, *i)
			}
		}
	}
}

func findInstance(r Report, uuid string) *Instance {
	n := slices.IndexFunc(r.Instances, func(i Instance) bool { return i.UUID == uuid })
	if n < 0 {
		return nil
	}
	return &r.Instances[n]
}

// serious is false for what is deleted in the ordinary course of things, also while
// an instance has it open: libvirt makes the console log anew at every start.
func serious(role Role) bool {
	return role != RoleOther && role != RoleConsoleLog && role != RoleDiskInfo
}

// missesFiles is true for an instance that a scan found without files that it needs.
func missesFiles(i Instance) bool {
	return slices.ContainsFunc(i.Files, func(f File) bool { return serious(f.Role) && f.Lost() })
}

// inUseBy is true while the QEMU or the virtlogd that had an instance's file open
// at the last scan has it open still.
func inUseBy(i Instance, key inode) bool {
	for _, f := range i.Files {
		if (inode{f.Device, f.Inode}) != key || !serious(f.Role) {
			continue
		}
		for _, h := range f.Holders {
			var st unix.Stat_t
			if h.PID != i.PID && h.Process != logDaemon || unix.Stat(fmt.Sprintf("%s/%d/fd/%d", procDir, h.PID, h.FD), &st) != nil {
				continue
			}
			if st.Dev == key.Device && st.Ino == key.Inode {
				return true
			}
		}
	}
	return false
}

// holdTree walks the tree, holds what is new and notes what was renamed.
func (g *Guard) holdTree(ctx context.Context) {
	path := g.e.Settings.InstancesPath
	held, refused := 0, false
	tree, err := walkTree(g.root, path, func(f treeFile, dir *beneath.Dir, name string) {
		known := g.holds.update(f.inode, func(h *guardHold) {
			h.Path = f.path
			if f.owner != "" {
				h.Owners = union(h.Owners, []string{f.owner})
			}
		})
		if known {
			return
		}
		if !g.mayHold(dir) {
			refused = true
			return
		}
		file, err := openTreeFile(dir, name)
		if err != nil {
			if !vanished(err) {
				g.problem("open "+f.path, fmt.Errorf("%s can't be held: %w", f.path, err))
			}
			return
		}
		m := holdMemory{Path: f.path, Role: RoleOther}
		if f.owner != "" {
			m.Owners = []string{f.owner}
			if name == "console.log" { // it may be gone before a scan says what it is
				m.Role = RoleConsoleLog
			}
		}
		if err := g.holds.add(file, m); err != nil {
			g.problem("shelf", err)
		}
		held++
	})
	g.watch.Set(append(tree.dirs, filepath.Dir(path)))
	g.problem("watch", g.watch.Problem())
	if err != nil {
		err = fmt.Errorf("the instances can't be walked through: %w", err)
	}
	g.problem("tree", err)
	if refused {
		err = errors.New("nothing can be held below " + path + ": on this file system (NFS?) a deleted file that is open keeps a hidden name, which would keep Nova from deleting instances. Deletions are still noticed")
	} else {
		err = nil
	}
	g.problem("silly", err)
	if held > 0 {
		zerolog.Ctx(ctx).Debug().Int("files", held).Msg("held")
		g.lookSoon() // whose they are, and what to their instances
	}
}

// mayHold is false on a file system on which a hold would keep a directory from
// being removed. Each is tried once.
func (g *Guard) mayHold(dir *beneath.Dir) bool {
	st, err := dir.Info()
	if err != nil {
		return false
	}
	g.mu.Lock()
	silly, tried := g.silly[st.Dev]
	g.mu.Unlock()
	if tried {
		return !silly
	}
	top, err := g.root.OpenDir(g.e.Settings.InstancesPath)
	if err != nil {
		return false // tried again at the next sweep
	}
	defer top.Close()
	if at, err := top.Info(); err != nil || at.Dev != st.Dev {
		return err == nil // a mount below the instances directory, which Nova does not make
	}
	silly, err = sillyRenames(top)
	if err != nil {
		err = fmt.Errorf("whether a deleted file that is open keeps a hidden name on this file system can't be tried out (for that the instances directory must be writable to the guard: ReadWritePaths= and CAP_DAC_OVERRIDE in its unit), and in doubt nothing is held: %w", err)
		silly = true
	}
	g.problem("probe", err)
	g.mu.Lock()
	g.silly[st.Dev] = silly
	g.mu.Unlock()
	return !silly
}

// begin notes an incident: an instance that exists has lost files. It is said
// once. What the instance loses in the course of it is held with the rest.
func (g *Guard) begin(ctx context.Context, i Instance) {
	need := func(h *guardHold) {
		h.Needed = true
		if h.Deleted.IsZero() { // the scan saw it first
			h.Deleted = time.Now().UTC()
		}
	}
	for _, f := range i.Files {
		if f.Lost() {
			g.holds.update(inode{f.Device, f.Inode}, need)
		}
	}
	for _, h := range g.holds.deleted() {
		if slices.Contains(h.Owners, i.UUID) {
			g.holds.update(h.inode(), need)
		}
	}
	g.mu.Lock()
	_, known := g.incidents[i.UUID]
	if !known {
		now := time.Now().UTC()
		found := i.State
		g.incidents[i.UUID] = &Incident{UUID: i.UUID, Domain: i.Domain, Name: i.Name, ProjectID: i.ProjectID, ProjectName: i.ProjectName, Since: now, Found: found}
		g.seen++
		r := g.records[i.UUID]
		r.Incident = &incidentRecord{Since: now, Found: found}
		if r.Domain.UUID == "" {
			r.Domain = i.domain
		}
		g.records[i.UUID] = r
	}
	g.mu.Unlock()
	g.describe(i.UUID)
	g.bringUpToDate(i.UUID)
	if known {
		return
	}
	incident := g.incident(i.UUID)
	zerolog.Ctx(ctx).Error().Str("instance", i.UUID).Str("domain", i.Domain).Str("name", i.Name).Str("project", i.ProjectID).
		Str("state", string(i.State)).Strs("paths", incident.Paths).Str("size", humanize.IBytes(uint64(incident.Bytes))).
		Msg("files of an instance were deleted; they are held. Do not stop or reboot it: os-rescue scan says what to do")
	if err := g.saveRecord(i.UUID); err != nil {
		g.problem("save", err)
	}
	g.lockSoon()
}

// describe fills in which files of an incident are deleted.
func (g *Guard) describe(uuid string) {
	var paths []string
	var bytes int64
	for _, h := range g.holds.deleted() {
		if h.Needed && slices.Contains(h.Owners, uuid) {
			paths = append(paths, h.Path)
			bytes += h.bytes
		}
	}
	slices.Sort(paths)
	g.mu.Lock()
	defer g.mu.Unlock()
	incident := g.incidents[uuid]
	if incident == nil {
		return
	}
	incident.Paths, incident.Bytes = slices.Compact(paths), bytes
	if d := g.records[uuid].Domain; incident.Domain == "" {
		incident.Domain = d.Name
		if d.Nova != nil {
			incident.Name, incident.ProjectID, incident.ProjectName = d.Nova.Name, d.Nova.ProjectID, d.Nova.ProjectName
		}
	}
}

// incident returns a copy of an incident; its zero value when there is none.
func (g *Guard) incident(uuid string) Incident {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := g.incidents[uuid]; i != nil {
		return *i
	}
	return Incident{}
}

// bringUpToDate marks in the last scan what was deleted since: whoever asks must
// not wait for the next one.
func (g *Guard) bringUpToDate(uuid string) {
	gone := map[inode]bool{}
	for _, h := range g.holds.deleted() {
		gone[h.inode()] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	i := findInstance(g.report, uuid)
	if i == nil {
		return
	}
	// A copy: whoever was given the last one may be reading it.
	fresh := *i
	fresh.Files = slices.Clone(i.Files)
	changed := false
	for n := range fresh.Files {
		f := &fresh.Files[n]
		if f.State == FilePresent && gone[inode{f.Device, f.Inode}] {
			f.State, f.unlinked, changed = FileDeleted, true, true
			if _, err := os.Lstat(f.Path); !errors.Is(err, fs.ErrNotExist) {
				f.State = FileReplaced
			}
		}
	}
	if !changed {
		return
	}
	fresh.Verdict, fresh.Reasons, fresh.Possible = "", nil, nil
	judge(&fresh)
	g.report.Instances = slices.Clone(g.report.Instances)
	*findInstance(g.report, uuid) = fresh
}
