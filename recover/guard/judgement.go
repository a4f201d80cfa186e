package guard

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// arbiter decides about every deleted file after a full scan: does an instance that
// exists need it, may it go, or can that not be said yet. In doubt it is held.
type arbiter struct {
	runs      runs.Runs
	settle    time.Duration // Deps.Settle
	root      *beneath.Root
	instances string // the instances directory
	holds     *holdings
	copies    *comparer
	records   *records
	incidents *incidents
	locks     *locker
	nova      *novaSide
	problems  *problems
	options   func() Options
	strangers strangers
}

// decide judges by a scan's report.
func (a *arbiter) decide(ctx context.Context, report recover.Report) {
	j := &judgement{arbiter: a, report: report, answers: map[string]novaAnswer{}, spare: map[recover.Inode][]string{}}
	j.chooseStrangers()
	a.incidents.noteSoftDeleted(j.softDeleted(ctx))
	if !a.isAnythingOpen() && !slices.ContainsFunc(report.Instances, missesFiles) && len(j.gone()) == 0 {
		return // as on nearly every day: the journals need not be read
	}
	var err error
	if j.proven, err = a.runs.Published(); err == nil {
		j.inHand, err = a.runs.Unsettled(ctx)
	}
	if err != nil {
		a.problems.set("runs", fmt.Errorf("the journals of the runs can't be read, so nothing is let go: %w", err))
		return
	}
	a.problems.set("runs", nil)
	for _, i := range report.Instances {
		if !i.GuardOnly && i.PID != 0 && missesFiles(i) {
			a.incidents.begin(ctx, i)
		}
	}
	for _, uuid := range j.gone() {
		j.judgeGone(ctx, uuid)
	}
	for _, h := range a.holds.deleted() {
		j.judgeHold(ctx, h)
	}
	j.keepFree(ctx)
	j.endIncidents(ctx)
	j.unlockAll(ctx)
	j.dropRecords()
}

// isAnythingOpen is true while a held file is deleted, an incident is not over or a
// lock is not undone.
func (a *arbiter) isAnythingOpen() bool {
	sum, _ := a.holds.sum()
	return sum.DeletedFiles > 0 || a.incidents.any() || len(a.records.locked()) > 0
}

// judgement is one decision, by one scan.
type judgement struct {
	*arbiter
	report  recover.Report
	proven  runs.Published
	inHand  map[string]string // by UUID, the unfinished run that works on it
	answers map[string]novaAnswer
	mayAsk  map[string]bool            // the strangers that Nova is asked about
	hung    int                        // questions to Nova that were not answered in time
	spare   map[recover.Inode][]string // for which owners a deleted file goes first when room is short
	writers writers
}

// answer asks Nova about an instance, once per judgement; not about every stranger, nor about any
// after some questions that were not answered in time: other judgements follow.
func (j *judgement) answer(ctx context.Context, uuid string) novaAnswer {
	if a, ok := j.answers[uuid]; ok {
		return a
	}
	if !j.nova.isOffline() && (j.hung >= mostHung || j.isStranger(uuid) && !j.mayAsk[uuid]) {
		return novaUnknown
	}
	begun := time.Now()
	a := j.nova.ask(ctx, uuid)
	if a == novaUnknown && time.Since(begun) >= novaTime {
		j.hung++
	}
	j.answers[uuid] = a
	return a
}

// chooseStrangers decides which strangers this judgement asks Nova about. Of the others it is not
// known whether they exist: nothing of theirs is let go.
func (j *judgement) chooseStrangers() {
	if j.nova.isOffline() {
		return
	}
	var uuids []string
	for _, uuid := range j.gone() {
		if j.isStranger(uuid) {
			uuids = append(uuids, uuid)
		}
	}
	j.mayAsk = j.strangers.choose(time.Now(), uuids)
	var err error
	if waiting := len(uuids) - len(j.mayAsk); waiting > 0 {
		err = fmt.Errorf("%d instances that libvirt never named have lost files, and Nova is asked about %d in a minute: "+
			"until it is known of one, nothing of it is let go", len(uuids), mostStrangers)
	}
	j.problems.set("strangers", err)
}

func (j *judgement) isStranger(uuid string) bool {
	_, recorded := j.records.get(uuid)
	return !recorded && j.known(uuid) == nil
}

// softDeleted returns the instances that miss files and that Nova has as SOFT_DELETED, which
// are off: no incident.
func (j *judgement) softDeleted(ctx context.Context) []string {
	var gone []string
	for _, i := range j.report.Instances {
		if i.PID == 0 && (missesFiles(i) || i.Verdict == recover.VerdictLost) && j.answer(ctx, i.UUID) == novaSoftDeleted {
			gone = append(gone, i.UUID)
		}
	}
	return gone
}

// known returns an instance that libvirt knows; nil for others.
func (j *judgement) known(uuid string) *recover.Instance {
	if i := findInstance(j.report, uuid); i != nil && !i.GuardOnly {
		return i
	}
	return nil
}

// gone returns the instances that have a record or a deleted file here, and no domain.
func (j *judgement) gone() []string {
	gone := j.records.uuids()
	for _, h := range j.holds.deleted() {
		gone = append(gone, h.Owners...)
	}
	slices.Sort(gone)
	gone = slices.Compact(gone)
	return slices.DeleteFunc(gone, func(uuid string) bool { return j.known(uuid) != nil })
}

// judgeGone decides about an instance that libvirt does not know; its deleted files are
// judged one by one.
func (j *judgement) judgeGone(ctx context.Context, uuid string) {
	j.holds.retire(uuid)
	if j.inHand[uuid] != "" {
		return
	}
	switch j.answer(ctx, uuid) {
	case novaDeleted, novaMoved:
		j.disownBases(uuid)
	case novaHere:
		// Nova's hard reboot undefines a domain before it finds that the disk is gone.
		if i := findInstance(j.report, uuid); i != nil && missesFiles(*i) && !j.isOutdated(*i) {
			j.incidents.begin(ctx, *i)
		}
	case novaOffline:
		j.noteGone(uuid)
		if j.isOrderly(uuid) || !j.isWanted(uuid) && j.isGraceOver(uuid) {
			j.disownBases(uuid)
		}
	}
}

// isGraceOver is true for an instance of which libvirt has known nothing for all of the grace.
func (j *judgement) isGraceOver(uuid string) bool {
	since := time.Now()
	r, recorded := j.records.get(uuid)
	if recorded && !r.Gone.IsZero() {
		since = r.Gone
	}
	for _, h := range j.holds.deletedOf(uuid) {
		if h.Deleted.Before(since) && !recorded {
			since = h.Deleted
		}
	}
	return time.Since(since) > j.options().Grace
}

// isWanted is true for an instance that had lost one of the deleted files while it existed.
func (j *judgement) isWanted(uuid string) bool {
	return slices.ContainsFunc(j.holds.deletedOf(uuid), func(h guardHold) bool { return h.Needed })
}

// noteGone notes since when libvirt does not know an instance.
func (j *judgement) noteGone(uuid string) {
	j.problems.unsaved(uuid, j.records.update(uuid, func(r *inventory.Record) {
		if r.Gone.IsZero() {
			r.Gone = time.Now().UTC()
		}
	}))
}

// judgeHold decides about one deleted file, for each of its owners.
func (j *judgement) judgeHold(ctx context.Context, h guardHold) {
	if len(h.Owners) == 0 {
		j.act(ctx, h, verdict.Held(j.facts(ctx, h, "")))
		return
	}
	for _, uuid := range h.Owners {
		// One that was SOFT_DELETED in its incident may be back.
		if i := j.known(uuid); i != nil && i.PID == 0 && j.inHand[uuid] == "" && i.Verdict != recover.VerdictUnknown && !j.isProven(h) {
			_, inIncident := j.incidents.get(uuid)
			if hasLost(*i, h) && (!h.Needed || !inIncident) && missesFiles(*i) && j.isIncident(ctx, *i, j.isSettled(h)) && !j.isOutdated(*i) {
				j.incidents.begin(ctx, *i)
			}
		}
		j.act(ctx, h, verdict.Held(j.facts(ctx, h, uuid)), uuid)
	}
}

// isSettled is true for a file that had been deleted for a while when the scan was made.
// Of a later deletion the report says nothing, however long ago it is by now: Nova may
// have taken its time.
func (j *judgement) isSettled(h guardHold) bool { return j.report.Taken.Sub(h.Deleted) >= j.settle }

// isAnyMissingFiles is true while any instance misses files, other than the given one: then a
// file that nobody is known to need may be one of them.
func (j *judgement) isAnyMissingFiles(but string) bool {
	list, _ := j.incidents.list()
	return slices.ContainsFunc(list, func(i Incident) bool { return i.UUID != but }) ||
		slices.ContainsFunc(j.report.Instances, func(i recover.Instance) bool {
			return i.UUID != but && (missesFiles(i) || isInDoubt(i)) && (!i.GuardOnly || !j.isOrderly(i.UUID))
		})
}

// hasLost is true when a scan found that the file is one that an instance has lost, or may be.
func hasLost(i recover.Instance, h guardHold) bool {
	return slices.ContainsFunc(slices.Concat(i.Files, i.Nameless), func(f recover.File) bool {
		return f.Lost() && h.inode() == f.Identity()
	})
}

// isIncident says whether a stopped instance that misses a file is one that
// exists: Nova deletes an instance's files before its domain.
func (j *judgement) isIncident(ctx context.Context, i recover.Instance, settled bool) bool {
	switch j.answer(ctx, i.UUID) {
	case novaHere:
		return true
	case novaOffline, novaUnknown:
		return settled
	}
	return false
}

// isOutdated is true if files have been made since the report at paths where it has seen none:
// Nova's answer is of a later time then, at which a rebuild was over. The next scan decides.
func (j *judgement) isOutdated(i recover.Instance) bool {
	return slices.ContainsFunc(i.Files, func(f recover.File) bool {
		_, err := j.root.Lstat(f.Path)
		return f.State == recover.FileDeleted && err == nil
	})
}

// isInDoubt is true for an instance of which files are gone that nobody could find, or that
// could not be judged: a file that seems to be none of its own may be one of those.
func isInDoubt(i recover.Instance) bool {
	return i.Verdict == recover.VerdictLost || i.Verdict == recover.VerdictUnknown || slices.ContainsFunc(i.Files, recover.File.Unusable)
}

// isProven is true when a run has put the file's content back, and that stands: it was not
// written since, other than by its guest, or was compared again. Where a file has no birth that is never sure: the run
// itself has told the guard then.
func (j *judgement) isProven(h guardHold) bool {
	p, ok := j.proven.Copy(h.Path, h.inode())
	if !ok || j.isWritten(h) {
		return false
	}
	at, err := j.root.Lstat(h.Path)
	return err == nil && p.Identity().Is(at.Inode(), false) && (p.IsUnwritten(at) || j.copies.equal(h, at))
}

// isWritten is true while the QEMU of an instance has the file open for writing: whatever
// was copied of it, and whatever stands at its path, it is the instance's disk. A console
// log is none.
func (j *judgement) isWritten(h guardHold) bool {
	return h.Role != recover.RoleConsoleLog &&
		slices.ContainsFunc(j.report.Instances, func(i recover.Instance) bool { return i.Writes(h.inode()) })
}

// endIncidents ends those of which nothing is needed any more, and brings the
// others up to date.
func (j *judgement) endIncidents(ctx context.Context) {
	// First the incidents: the files of one that begins meanwhile are needed by then.
	list, _ := j.incidents.list()
	needed := map[string]bool{}
	for _, h := range j.holds.deleted() {
		if h.Needed && h.Role != recover.RoleConsoleLog {
			for _, uuid := range h.Owners {
				needed[uuid] = true
			}
		}
	}
	for _, incident := range list {
		i := j.known(incident.UUID)
		j.incidents.describe(incident.UUID)
		j.incidents.update(incident.UUID, func(now *Incident) { now.Replaced = i != nil && i.IsWhole() })
		if j.answers[incident.UUID] == novaSoftDeleted || !needed[incident.UUID] && (i == nil || !missesFiles(*i)) {
			j.incidents.end(ctx, incident.UUID)
		}
	}
}

// unlockAll undoes the guard's locks of instances that are back, and tries again
// when Nova did not answer: not while a run works on the instance, nor while its owner's
// reboot would start it on other files than it has.
func (j *judgement) unlockAll(ctx context.Context) {
	for _, uuid := range j.records.locked() {
		i := j.known(uuid)
		if i == nil || !i.IsWhole() || j.inHand[uuid] != "" {
			continue
		}
		if why := i.StartsElsewhere(recover.StarterNova); why != "" {
			j.problems.set("unlock "+uuid, fmt.Errorf("the files of %s are back, and it stays locked in Nova by the guard: %s; first: %s",
				uuid, why, i.CureOfNextStart()))
			continue
		}
		j.locks.unlock(ctx, uuid)
	}
}

// dropRecords forgets instances of which there is nothing any more.
func (j *judgement) dropRecords() {
	owned := j.holds.owners()
	for _, uuid := range j.records.uuids() {
		if j.known(uuid) != nil {
			continue
		}
		if r, _ := j.records.get(uuid); r.Gone.IsZero() {
			j.noteGone(uuid) // and dropped by the next judgement
			continue
		}
		if owned[uuid] {
			continue
		}
		j.problems.unsaved(uuid, j.records.drop(uuid))
		j.incidents.drop(uuid)
		j.problems.set("record "+uuid, nil)
		j.problems.set("unlock "+uuid, nil)
	}
}

// isEssential is false for a file that is deleted in the ordinary course of things,
// also while an instance has it open: libvirt makes the console log anew at every start.
func isEssential(role recover.Role) bool {
	return role != recover.RoleOther && role != recover.RoleConsoleLog && role != recover.RoleDiskInfo
}

// missesFiles is true for an instance that a scan found without files that it needs: also when
// a deleted file that its QEMU has open, or that is held for it, could not be matched to any.
func missesFiles(i recover.Instance) bool {
	return slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Lost() && isEssential(f.Role) }) ||
		slices.ContainsFunc(i.Strays(), func(f recover.File) bool { return f.Lost() && !wasOfRun(f.Path) })
}
