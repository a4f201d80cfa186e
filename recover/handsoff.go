package recover

import (
	"fmt"
	"slices"
	"strings"
)

// HandsOff says why a run must not do that to a domain now, and what to do; empty when it
// may. paths are those of the files that the action copies, puts back or gives their names
// back. Only what the action touches counts: a put-back pauses nobody, a live rescue moves
// the lost disks and no others, and what ends the domain must be able to bring every one of
// its disks back.
func HandsOff(d Domain, action Action, paths []string) string {
	if action.RunsOn() {
		if why := d.inTheWay(paths); why != "" {
			return why
		}
	} else if why := d.busy(); why != "" {
		return why
	}
	for _, disk := range d.Disks {
		copies := action != ActionLinkBack && action != ActionMoveBack
		if copies && len(disk.Unusual) > 0 && disk.hasAny(paths) {
			return fmt.Sprintf("disk %s uses features with which os-rescue can't copy its files: %s",
				disk.Target, strings.Join(disk.Unusual, ", "))
		}
		if action == ActionBackup && disk.Transient {
			return fmt.Sprintf("disk %s is transient: what was written to it goes to a temporary overlay, which no backup keeps", disk.Target)
		}
		if len(disk.LostAtEnd) > 0 && action == ActionReboot {
			return fmt.Sprintf("its QEMU must not be ended, because of disk %s: %s", disk.Target, strings.Join(disk.LostAtEnd, ", "))
		}
	}
	return ""
}

// busy says why the domain can't be paused or ended now.
func (d Domain) busy() string {
	switch {
	case d.Job != "":
		return fmt.Sprintf("a job is under way on the domain (%s): wait for it to end", d.Job)
	case len(d.BlockJobs) > 0:
		return blockJobs(d.BlockJobs)
	case d.State == StatePaused && d.PauseReason == PauseIOError:
		return "QEMU paused the guest because of an I/O error, and still has in memory what it could not write: " +
			"remove the cause (a full file system?), then resume the guest with virsh resume"
	case d.State == StatePaused && d.PauseReason == PausePostcopy:
		return migrating
	case d.State == StatePaused && d.PauseReason == PauseMigration:
		return "libvirt started the guest from saved memory and left it paused, or a migration of it ended halfway, and os-rescue can't " +
			"tell which: if it runs on no other host, " + d.pausedByUser()
	case d.State == StatePaused && d.PauseReason != PauseUser:
		return "the guest is paused, but not by a user, so os-rescue can't tell whether its disks were flushed: virsh domstate --reason " +
			d.Name + " says what paused it (a watchdog, a snapshot, a dump); when that is over, " + d.pausedByUser()
	case d.State == StateCrashed && d.PID != 0:
		return "the guest has crashed, and its QEMU is kept for inspection (on_crash): when nobody needs it as it is, " + d.pausedByUser()
	case d.State == StatePMSuspended:
		return "the guest sleeps (pmsuspended), and can't be paused: virsh dompmwakeup " + d.Name + " wakes it; then run this again"
	case d.State == StateOther:
		return "the domain is between two states: scan again in a moment"
	}
	return ""
}

// pausedByUser says how a guest that stands still comes to run, or to be paused by a user: a suspend
// of what stands still already flushes nothing, and keeps the reason.
func (d Domain) pausedByUser() string {
	return fmt.Sprintf("virsh resume %[1]s, and where it is to stand still virsh suspend %[1]s at once; then run this again", d.Name)
}

const migrating = "the guest is being migrated: wait for the migration to end"

// inTheWay says what keeps files from being put back under a domain that goes on as it is.
// A guest that stands still does not, whatever stopped it, nor does a job that only reads. A
// migration that is under way does: the instance is about to leave, and its directory with it. So does a block
// job on a disk that has one of the files: a commit writes into backing files, and every job
// may end with another chain.
func (d Domain) inTheWay(paths []string) string {
	switch {
	case d.State == StatePaused && d.PauseReason == PausePostcopy:
		return migrating
	case strings.HasPrefix(d.Job, "migration"):
		return migrating
	case !slices.Contains([]string{"", "dump", "save", "backup"}, d.Job):
		return d.busy()
	}
	jobs := map[string]string{}
	for _, disk := range d.Disks {
		if kind, ok := d.BlockJobs[disk.Target]; ok && disk.hasAny(paths) {
			jobs[disk.Target] = kind
		}
	}
	return blockJobs(jobs)
}

// hasAny is true when one of the paths is that of an image of the disk.
func (d Disk) hasAny(paths []string) bool {
	return slices.ContainsFunc(d.Chain, func(m Image) bool {
		return m.Source == SourceFile && slices.Contains(paths, m.Path)
	})
}

// blockJobs names block jobs, by the disk's target, and says what to do; empty for none.
func blockJobs(jobs map[string]string) string {
	if len(jobs) == 0 {
		return ""
	}
	var list []string
	command := "virsh domjobabort" // which ends a backup on all disks (virsh(1))
	for target, kind := range jobs {
		list = append(list, target+" "+kind)
		if kind != "backup" {
			command = "virsh blockjob"
		}
	}
	slices.Sort(list)
	return fmt.Sprintf("a block job is under way (%s): wait for it to end, or end it with %s", strings.Join(list, ", "), command)
}
