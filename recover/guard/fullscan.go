package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// fullScanTime bounds one full scan, in which a hypervisor may hang.
const fullScanTime = 2 * time.Minute

// fullScan finds out whose each file is, what libvirt knows, and which files
// processes hold that are not in the instances directory; then it has the arbiter
// decide about what is deleted.
type fullScan struct {
	settings   recover.Settings
	hypervisor recover.Hypervisor
	scanner    *scan.Scanner
	root       *beneath.Root
	holds      *holdings
	records    *records
	stale      *staleDomains
	last       *lastScan
	nova       *novaSide
	arbiter    *arbiter
	problems   *problems
	save       func() error // brings the holdings to the disk
}

// run makes one full scan.
func (s *fullScan) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fullScanTime)
	defer cancel()
	s.holds.parted(partings.forget)
	s.holds.noteTwins() // a keeper may have died
	stale := s.stale.take()
	report, err := s.scanner.Host(ctx, recover.Hints{})
	if err != nil {
		s.stale.giveBack(stale)
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.problems.set("scan", fmt.Errorf("the host can't be scanned, so nothing is let go: %w", err))
		}
		return
	}
	s.problems.set("scan", nil)
	s.takeIn(ctx, report, stale)
	s.keepComputeID()
	s.last.set(report)
	for _, h := range s.holds.deleted() { // some may be deleted since the report looked at them
		for _, uuid := range h.Owners {
			s.last.markDeleted(uuid, map[recover.Inode]bool{h.inode(): true})
		}
	}
	s.nova.learnHost(ctx, report)
	s.arbiter.decide(ctx, report)
	if err := s.save(); err != nil {
		s.problems.set("save", err)
	}
}

// keepComputeID keeps a copy of Nova's compute_id. Of one that is gone or has changed the
// scan's report tells.
func (s *fullScan) keepComputeID() {
	err := inventory.In(s.settings.StateDir).KeepComputeID(s.root, s.settings.ComputeIDPaths)
	if err != nil {
		err = fmt.Errorf("no copy of Nova's %s is kept, so it could not be put back: %w", recover.ComputeIDName, err)
	}
	s.problems.set("compute-id", err)
}

// takeIn holds each instance's files and notes the instance. One that could not be
// read stays stale.
func (s *fullScan) takeIn(ctx context.Context, report recover.Report, stale takenDomains) {
	var unknown []string
	unheld := faults{}
	for _, i := range report.Instances {
		if i.Verdict == recover.VerdictUnknown {
			unknown = append(unknown, i.Domain+": "+strings.Join(i.Reasons, "; "))
			s.holdFiles(i, unheld) // which file is which can be said later
			if stale.has(i.UUID) {
				s.stale.add(i.UUID)
			}
			continue
		}
		s.holdFiles(i, unheld)
		err := s.note(ctx, i, stale.has(i.UUID), report.Taken)
		if err != nil && stale.has(i.UUID) {
			s.stale.add(i.UUID)
		}
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("the definition of %s can't be written down, so it could not be defined again: %w", i.Domain, err)
		} else {
			err = nil
		}
		s.problems.set("record "+i.UUID, err)
	}
	var err error
	if len(unknown) > 0 {
		err = fmt.Errorf("%d instances can't be judged; none of their files is let go: %s", len(unknown), unknown[0])
	}
	s.problems.set("unknown", err)
	s.problems.replace(aboutOpen, unheld)
	if err := s.holds.shelve(); err != nil {
		s.problems.set("shelf", err)
	}
}

// holdFiles holds the files that an instance's processes have open and the guard has
// not, and learns what each of its files is to it. A file that could not be held is
// put into unheld.
func (s *fullScan) holdFiles(i recover.Instance, unheld faults) {
	for _, f := range slices.Concat(i.Files, i.Nameless) {
		if f.Inode == 0 || f.Role == recover.RoleDiskInfo || f.Proven {
			continue
		}
		key := f.Identity()
		direct := false
		opened := isOpenedBy(i, f)
		if !opened && s.holds.isLetGo(key, i.UUID) {
			continue // the keeper has it still
		}
		known := s.holds.update(key, func(h *guardHold) {
			h.addOwner(i.UUID)
			h.Opened = h.Opened || opened
			if f.Role != recover.RoleOther {
				h.Role, h.Format, h.Target, h.Backing = f.Role, f.Format, f.Target, f.Backing
				h.Path, h.Belongs = f.Path, f.Path
			}
			direct = h.direct
		})
		if known && (direct || !slices.ContainsFunc(f.Holders, func(h recover.Holder) bool { return h.Direct })) {
			continue
		}
		// The guard's own descriptor, as the scan saw it, is one that was let go since.
		f.Holders = slices.DeleteFunc(slices.Clone(f.Holders), func(h recover.Holder) bool { return h.PID == os.Getpid() })
		if !known && !s.isWanted(i, f) {
			continue
		}
		if !known && s.holds.isFull() {
			unheld.addFull(f.Path)
			continue
		}
		file, err := openScanned(s.root, f)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				unheld.add(f.Path, fmt.Errorf("%s can't be held: %w", f.Path, err))
			}
			continue
		}
		if known {
			err = s.holds.makeDirect(key, file)
		} else {
			m := holdMemory{Path: f.Path, Owners: []string{i.UUID}, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing,
				Opened: opened}
			if f.Role != recover.RoleOther {
				m.Belongs = f.Path
			}
			if f.Unlinked {
				m.Deleted = time.Now().UTC()
			}
			err = s.holds.add(file, m)
		}
		if err != nil {
			s.problems.set("shelf", err)
		}
	}
	if i.PID != 0 && i.Verdict != recover.VerdictUnknown {
		s.disownBases(i)
	}
}

// isOpenedBy is true for a file that the instance's QEMU has open, or virtlogd for it. What a keeper
// or anybody else has open may be anything.
func isOpenedBy(i recover.Instance, f recover.File) bool {
	return slices.ContainsFunc(f.Holders, func(h recover.Holder) bool { return i.PID != 0 && h.PID == i.PID || h.Process == procfs.Virtlogd })
}

// disownBases notes which backing files a running instance does not have any more:
// it was rebuilt, say, and the image cache may remove them.
func (s *fullScan) disownBases(i recover.Instance) {
	has := map[recover.Inode]bool{}
	for _, f := range i.Files {
		has[f.Identity()] = true
	}
	s.holds.updateEach(func(h *guardHold) {
		if h.Role == recover.RoleBacking && h.Deleted.IsZero() && !has[h.inode()] {
			h.dropOwner(i.UUID)
		}
	})
}

// isWanted is true for a file that is to be held although it is not in the instances
// directory as the guard sees it: one that is deleted, was renamed or is hidden by a mount, and one
// that an instance of Nova's has elsewhere, or where only its QEMU sees it; one that has a name only on a
// file system of this host. A hold on a remote one could keep somebody else from removing it.
func (s *fullScan) isWanted(i recover.Instance, f recover.File) bool {
	switch f.State {
	case recover.FileDeleted, recover.FileReplaced:
		return len(f.Holders) > 0 && !isOfRun(filepath.Base(f.Path))
	case recover.FileDisplaced:
		return len(f.Holders) > 0 && recover.IsBelow(f.Path, s.settings.InstancesPath)
	case recover.FilePresent:
		return i.Definition.Nova != nil && (f.OtherRoot || !recover.IsBelow(f.Path, s.settings.InstancesPath))
	}
	return false
}

// note writes down what libvirt says of an instance, and its small files. The
// definition is read if it is stale or not known yet. taken is when the domains were listed.
func (s *fullScan) note(ctx context.Context, i recover.Instance, stale bool, taken time.Time) error {
	old, _ := s.records.get(i.UUID)
	definition := old.Definition
	if !i.GuardOnly && (stale || definition == "") {
		var err error
		if definition, err = s.hypervisor.XML(ctx, i.UUID); err != nil {
			return err
		}
	}
	small, unrescued := s.readSmall(i)
	return s.records.note(i.UUID, func(r *inventory.Record) {
		if i.GuardOnly && r.Gone.IsZero() {
			r.Gone = time.Now().UTC()
		}
		if !i.GuardOnly {
			if r.Gone.Before(taken) { // else it was undefined since its domain was listed
				r.Gone = time.Time{}
			}
			r.Definition = definition
			if i.PID != 0 || len(r.Domain.Disks) == 0 {
				r.Domain = i.Definition
				r.Domain.Job, r.Domain.BlockJobs = "", nil
			}
		}
		r.AddSmall(small)
		if unrescued {
			r.DropSmall(inventory.UnrescueName)
		}
	})
}

// noteUndefined notes at once that libvirt does not know a domain any more: in which order it
// was undefined and its files were deleted decides about these.
func (s *fullScan) noteUndefined(ctx context.Context, uuid string) {
	if _, err := s.hypervisor.Domain(ctx, uuid); !errors.Is(err, recover.ErrNoDomain) {
		return
	}
	s.holds.retire(uuid)
	s.problems.unsaved(uuid, s.records.update(uuid, func(r *inventory.Record) {
		if r.Gone.IsZero() {
			r.Gone = time.Now().UTC()
		}
	}))
}

// readSmall reads an instance's small files. unrescued is true when Nova has removed
// the definition of before a rescue, as it does at its end.
func (s *fullScan) readSmall(i recover.Instance) (small map[string]string, unrescued bool) {
	dir, err := s.root.OpenDir(filepath.Join(s.settings.InstancesPath, i.UUID))
	if err != nil {
		return nil, false
	}
	defer dir.Close()
	small = inventory.ReadSmall(dir)
	_, err = dir.Stat(inventory.UnrescueName)
	return small, errors.Is(err, os.ErrNotExist) && i.Verdict == recover.VerdictIntact
}
