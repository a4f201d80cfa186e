package recover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// look is one full scan: whose each file is, what processes hold and the tree does
// not have, what libvirt knows; then what is deleted is judged.
func (g *Guard) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	report, err := g.e.Scan(ctx)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			g.problem("scan", fmt.Errorf("the host can't be scanned, so nothing is let go: %w", err))
		}
		return
	}
	g.problem("scan", nil)
	var unknown []string
	for _, i := range report.Instances {
		if i.Verdict == VerdictUnknown {
			unknown = append(unknown, i.Domain+": "+strings.Join(i.Reasons, "; "))
			continue
		}
		g.holdOf(i)
		if err := g.note(ctx, i); err != nil && ctx.Err() == nil {
			g.problem("record "+i.UUID, fmt.Errorf("%s can't be noted, and could not be defined again: %w", i.Domain, err))
		} else {
			g.problem("record "+i.UUID, nil)
		}
	}
	var unseen error
	if len(unknown) > 0 {
		unseen = fmt.Errorf("%d instances can't be looked at; nothing of theirs is let go: %s", len(unknown), unknown[0])
	}
	g.problem("unknown", unseen)
	g.mu.Lock()
	delete(g.stale, "")
	g.report, g.scanned = report, time.Now().UTC()
	g.mu.Unlock()
	if err := g.takeBack(ctx); err != nil {
		g.problem("keeper", fmt.Errorf("the keeper may hold files that are let go here: %w", err))
	} else {
		g.problem("keeper", nil)
	}
	g.learnHost(ctx, report)
	g.judge(ctx, report)
	if err := g.save(); err != nil {
		g.problem("save", err)
	}
}

// holdOf holds what an instance's processes have open and the guard has not, and
// learns what each of its files is to it.
func (g *Guard) holdOf(i Instance) {
	for _, f := range slices.Concat(i.Files, i.nameless) {
		if f.Inode == 0 || f.Role == RoleDiskInfo || f.Proven {
			continue
		}
		key := inode{f.Device, f.Inode}
		direct := false
		known := g.holds.update(key, func(h *guardHold) {
			h.Owners = union(h.Owners, []string{i.UUID})
			if f.Role != RoleOther {
				h.Role, h.Format, h.Target, h.Backing = f.Role, f.Format, f.Target, f.Backing
				h.Path = f.Path
			}
			direct = h.direct
		})
		if known && (direct || !slices.ContainsFunc(f.Holders, func(h Holder) bool { return h.Direct })) {
			continue
		}
		if !known && !g.wants(i, f) {
			continue
		}
		src, err := g.openFile(f)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				g.problem("open "+f.Path, fmt.Errorf("%s can't be held: %w", f.Path, err))
			}
			continue
		}
		if known {
			err = g.holds.makeDirect(key, src)
		} else {
			m := holdMemory{Path: f.Path, Owners: []string{i.UUID}, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing}
			if f.unlinked {
				m.Deleted = time.Now().UTC()
			}
			err = g.holds.add(src, m)
		}
		if err != nil {
			g.problem("shelf", err)
		}
	}
	if i.PID != 0 {
		g.forgetBases(i)
	}
}

// forgetBases notes which backing files a running instance does not have any more:
// it was rebuilt, say, and the image cache may remove them.
func (g *Guard) forgetBases(i Instance) {
	has := map[inode]bool{}
	for _, f := range i.Files {
		has[inode{f.Device, f.Inode}] = true
	}
	g.holds.each(func(h *guardHold) {
		if h.Role == RoleBacking && h.Deleted.IsZero() && !has[h.inode()] {
			h.Owners = slices.DeleteFunc(h.Owners, func(o string) bool { return o == i.UUID })
		}
	})
}

// wants is true for a file that is to be held although the walk did not find it:
// what is deleted, and what an instance of Nova's has elsewhere on a file system of
// this host. A hold on a remote one could keep somebody else from removing it.
func (g *Guard) wants(i Instance, f File) bool {
	switch f.State {
	case FileDeleted, FileReplaced:
		return len(f.Holders) > 0
	case FilePresent:
		return i.domain.Nova != nil && !isBelow(f.Path, g.e.Settings.InstancesPath)
	}
	return false
}

// openFile opens a file that a scan found, through whoever holds it; NVRAM of a
// domain that is off by its path.
func (g *Guard) openFile(f File) (*os.File, error) {
	if len(f.Holders) == 0 {
		return g.openByPath(f)
	}
	src, err := openHeld(f)
	if errors.Is(err, copier.ErrDirectRefused) {
		f.Holders = slices.Clone(f.Holders)
		for n := range f.Holders {
			f.Holders[n].Direct = false
		}
		src, err = openHeld(f)
	}
	if err != nil {
		return nil, err
	}
	if f.State == FilePresent {
		return src.File, g.local(src.File)
	}
	return src.File, nil
}

func (g *Guard) openByPath(f File) (*os.File, error) {
	dir, err := g.root.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	file, err := dir.Open(filepath.Base(f.Path), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || st.Dev != f.Device || st.Ino != f.Inode {
		file.Close()
		return nil, os.ErrNotExist // another file by now: the next scan sees it
	}
	return file, g.local(file)
}

// local closes a file that other hosts may remove, and says that it is not there
// to be held.
func (g *Guard) local(f *os.File) error {
	shared, err := copier.Shared(f)
	if err == nil && shared {
		err = os.ErrNotExist
	}
	if err != nil {
		f.Close()
	}
	return err
}

// note keeps what libvirt says of an instance, and its small files.
func (g *Guard) note(ctx context.Context, i Instance) error {
	g.mu.Lock()
	r, known := g.records[i.UUID]
	stale := g.stale[""] || g.stale[i.UUID] || !known || r.Definition == ""
	g.mu.Unlock()
	if i.forgotten {
		if r.Gone.IsZero() {
			r.Gone = time.Now().UTC()
		}
	} else {
		r.Gone = time.Time{}
		d := i.domain
		d.Job, d.BlockJobs = "", nil
		if i.PID != 0 || len(r.Domain.Disks) == 0 {
			r.Domain = d
		}
		if stale {
			definition, err := g.e.Hypervisor.XML(ctx, i.UUID)
			if err != nil {
				return err
			}
			r.Definition = definition
		}
	}
	dir, err := g.root.OpenDir(filepath.Join(g.e.Settings.InstancesPath, i.UUID))
	if err == nil {
		r.Small = maps.Clone(r.Small) // the map in g.records may be in use
		r.readSmall(dir)
		if _, serr := dir.Stat(unrescueName); errors.Is(serr, os.ErrNotExist) && i.Verdict == VerdictIntact {
			r.forget(unrescueName) // Nova removed it with the rescue
		}
		dir.Close()
	}
	g.mu.Lock()
	delete(g.stale, i.UUID)
	if now, ok := g.records[i.UUID]; ok { // which only the other goroutines set
		r.Incident, r.Lock = now.Incident, now.Lock
	}
	g.records[i.UUID] = r
	g.mu.Unlock()
	return g.saveRecord(i.UUID)
}

// saveRecord brings an instance's record to the disk.
func (g *Guard) saveRecord(uuid string) error {
	g.mu.Lock()
	r, ok := g.records[uuid]
	g.mu.Unlock()
	if !ok || !strings.EqualFold(r.Domain.UUID, uuid) {
		return nil
	}
	return g.state.writeGuardRecord(r)
}

// dropRecord forgets an instance.
func (g *Guard) dropRecord(uuid string) error {
	g.mu.Lock()
	delete(g.records, uuid)
	delete(g.stale, uuid)
	delete(g.incidents, uuid)
	delete(g.problems, "record "+uuid)
	delete(g.problems, "unlock "+uuid)
	g.mu.Unlock()
	err := os.Remove(g.state.guardRecord(uuid))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return err
}
