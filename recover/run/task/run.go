package task

import (
	"context"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Run is what the tasks of one run share. It is complete before the first task
// begins, and only read from then on.
type Run struct {
	Settings   recover.Settings   // of this host
	Hypervisor recover.Hypervisor // this host's
	Cloud      recover.Cloud      // nil offline
	Progress   recover.Progress   // never nil
	Plan       recover.Plan       // of all instances
	Resuming   bool               // an interrupted run is finished
	// History is what an interrupted run had done, by UUID; empty for a new run.
	History  map[string]*journal.History
	Log      *journal.Writer // the run's journal
	StateDir statedir.Dir    // has the run's journal and the definitions that it saves
	Root     *beneath.Root   // the "/" below which the instances' files are
	Owners   *owners.Table   // nil where no file is given to anybody
	Pins     *pin.Custody    // the held inodes
	// Scan scans one domain, as it is now.
	Scan func(ctx context.Context, d recover.Domain) (recover.Instance, error)
	// Absent scans an instance whose domain libvirt does not know, as it is now.
	Absent func(ctx context.Context, server recover.Server) (recover.Instance, error)
	// PollInterval is how soon Nova is asked again how a reboot is.
	PollInterval time.Duration
}

// Source returns what a planned file is copied from: the held inode, or the backup's
// file. It stays the custody's, which closes it. fs.ErrNotExist when nobody has it.
func (r *Run) Source(ctx context.Context, f recover.FilePlan) (copier.Source, error) {
	if f.Stored != "" {
		return r.Pins.Stored(r.Plan.Options, f)
	}
	return r.Pins.Source(ctx, f)
}

// publishedBefore is true when the interrupted run gave the file's path that very
// inode, for whichever of its instances.
func (r *Run) publishedBefore(f recover.FilePlan, at recover.Inode, held bool) bool {
	for _, h := range r.History {
		if pub, ok := h.Published[f.Path]; ok && isPublished(pub, f, at, held) {
			return true
		}
	}
	return false
}

// isPublished is true when the file is the one that was published, and that is a copy of
// what the plan wants at its path. Devices may be numbered anew by a boot.
func isPublished(pub journal.Published, f recover.FilePlan, at recover.Inode, held bool) bool {
	return pub.Identity().IsNumbered(at, held) && f.HasKey(pub.Source)
}

// StoredBefore is true when the interrupted run had begun to store that file of a backup.
func (r *Run) StoredBefore(path string) bool {
	for _, h := range r.History {
		if slices.Contains(h.Stores, path) {
			return true
		}
	}
	return false
}
