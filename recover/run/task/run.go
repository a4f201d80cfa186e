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
	Settings   recover.Settings
	Hypervisor recover.Hypervisor
	Cloud      recover.Cloud // nil offline
	Progress   recover.Progress
	Plan       recover.Plan
	Resuming   bool                        // an interrupted run is finished
	History    map[string]*journal.History // what an interrupted run had done, by UUID; empty for a new one
	Log        *journal.Writer
	StateDir   statedir.Dir
	Root       *beneath.Root
	Owners     *owners.Table // nil where no file is given to anybody
	Pins       *pin.Custody
	// Scan scans one domain.
	Scan func(ctx context.Context, d recover.Domain) (recover.Instance, error)
	// PollInterval is how soon Nova is asked again how a reboot is.
	PollInterval time.Duration
}

// Source returns the open inode, or the backup's file, to copy a planned file
// from. fs.ErrNotExist when nobody has it.
func (r *Run) Source(ctx context.Context, f recover.FilePlan) (copier.Source, error) {
	if f.Stored != "" {
		return r.Pins.Stored(r.Plan.Options.BackupDir, f)
	}
	return r.Pins.Source(ctx, f)
}

// publishedBefore is true when the interrupted run gave the file's path that very
// inode, for whichever of its instances. Devices may be numbered anew by a boot.
func (r *Run) publishedBefore(f recover.FilePlan, at recover.Inode) bool {
	for _, p := range r.History {
		if pub, ok := p.Published[f.Path]; ok && pub.Inode == at.Inode && pub.Source == f.Key() {
			return true
		}
	}
	return false
}

// StoredBefore is true when the interrupted run had begun that file of a backup.
func (r *Run) StoredBefore(path string) bool {
	for _, p := range r.History {
		if slices.Contains(p.Stores, path) {
			return true
		}
	}
	return false
}
