package recover

import (
	"context"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// run is what the tasks of one run share. It is complete before the first task
// begins, and only read from then on.
type run struct {
	settings   Settings
	hypervisor Hypervisor
	cloud      Cloud // nil offline
	progress   Progress
	plan       Plan
	resuming   bool              // an interrupted run is finished
	history    map[string]*prior // what an interrupted run had done, by UUID; empty for a new one
	log        *journal
	stateDir   stateDir
	root       *beneath.Root
	owners     *owners // nil where no file is given to anybody
	pins       *custody
	// scan scans one domain.
	scan func(ctx context.Context, d Domain) (Instance, error)
	// pollInterval is how soon Nova is asked again how a reboot is.
	pollInterval time.Duration
}

// source returns the open inode, or the backup's file, to copy a planned file
// from. fs.ErrNotExist when nobody has it.
func (r *run) source(ctx context.Context, f FilePlan) (copier.Source, error) {
	if f.Stored != "" {
		return r.pins.stored(r.plan.Options.BackupDir, f)
	}
	return r.pins.source(ctx, f)
}

// publishedBefore is true when the interrupted run gave the file's path that very
// inode, for whichever of its instances. Devices may be numbered anew by a boot.
func (r *run) publishedBefore(f FilePlan, at inode) bool {
	for _, p := range r.history {
		if pub, ok := p.published[f.Path]; ok && pub.Inode == at.Inode && pub.Source == f.Key() {
			return true
		}
	}
	return false
}

// storedBefore is true when the interrupted run had begun that file of a backup.
func (r *run) storedBefore(path string) bool {
	for _, p := range r.history {
		if slices.Contains(p.stores, path) {
			return true
		}
	}
	return false
}
