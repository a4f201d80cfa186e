package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// judgement decides about every deleted file after a full scan: does an instance
// that exists need it, may it go, or can that not be said yet. In doubt it is held.
type judgement struct {
	g      *Guard
	report Report
	proven provenFiles
	inHand map[string]string // by UUID, the unfinished run that works on it
	words  map[string]novaWord
}

func (g *Guard) judge(ctx context.Context, report Report) {
	j := &judgement{g: g, report: report, words: map[string]novaWord{}}
	if !g.hasToJudge() && !slices.ContainsFunc(report.Instances, missesFiles) && len(j.gone()) == 0 {
		return // as on nearly every day: the journals need not be read
	}
	var err error
	if j.proven, err = g.e.provenFiles(); err == nil {
		j.inHand, err = g.e.unsettled(ctx)
	}
	if err != nil {
		g.problem("runs", fmt.Errorf("the journals of the runs can't be read, so nothing is let go: %w", err))
		return
	}
	g.problem("runs", nil)
	for _, i := range report.Instances {
		if !i.forgotten && i.PID != 0 && missesFiles(i) {
			g.begin(ctx, i)
		}
	}
	for _, uuid := range j.gone() {
		j.judgeGone(ctx, uuid)
	}
	for _, h := range g.holds.deleted() {
		j.judgeHold(ctx, h)
	}
	g.keepFree(ctx)
	j.endIncidents(ctx)
	j.dropRecords()
}

// hasToJudge is true while anything that is held is deleted, or was an incident.
func (g *Guard) hasToJudge() bool {
	g.mu.Lock()
	open := len(g.incidents)
	for _, r := range g.records {
		if r.Lock != "" {
			open++
		}
	}
	g.mu.Unlock()
	sum, _ := g.holds.heldSum()
	return open > 0 || sum.DeletedFiles > 0
}

// known returns an instance that libvirt knows; nil for others.
func (j *judgement) known(uuid string) *Instance {
	if i := findInstance(j.report, uuid); i != nil && !i.forgotten {
		return i
	}
	return nil
}

// gone returns the instances that have a record or a deleted file here, and no domain.
func (j *judgement) gone() []string {
	var gone []string
	add := func(uuid string) {
		if j.known(uuid) == nil {
			gone = append(gone, uuid)
		}
	}
	for _, h := range j.g.holds.deleted() {
		for _, uuid := range h.Owners {
			add(uuid)
		}
	}
	j.g.mu.Lock()
	for uuid := range j.g.records {
		add(uuid)
	}
	j.g.mu.Unlock()
	slices.Sort(gone)
	return slices.Compact(gone)
}

// judgeGone decides about an instance that libvirt does not know.
func (j *judgement) judgeGone(ctx context.Context, uuid string) {
	if j.inHand[uuid] != "" {
		return
	}
	g := j.g
	switch j.word(ctx, uuid) {
	case wordDeleted:
		g.disown(ctx, uuid, keeper.ReleasedDeleted)
	case wordMoved:
		g.disown(ctx, uuid, keeper.ReleasedMoved)
	case wordHere:
		// Nova's hard reboot undefines a domain before it finds that the disk is gone.
		if i := findInstance(j.report, uuid); i != nil && missesFiles(*i) {
			g.begin(ctx, *i)
		}
	case wordOffline:
		since, needed := time.Now(), false
		g.mu.Lock()
		r, ok := g.records[uuid]
		if ok && r.Gone.IsZero() {
			r.Gone = time.Now().UTC()
			g.records[uuid] = r
		}
		if ok {
			since = r.Gone
		}
		g.mu.Unlock()
		for _, h := range g.holds.deleted() {
			if slices.Contains(h.Owners, uuid) {
				needed = needed || h.Needed
				if h.Deleted.Before(since) && !ok {
					since = h.Deleted
				}
			}
		}
		if grace := g.optionsNow().Grace; !needed && time.Since(since) > grace {
			g.disown(ctx, uuid, keeper.ReleasedGrace)
		} else if err := g.saveRecord(uuid); err != nil {
			g.problem("save", err)
		}
	}
}

// disown lets an instance's deleted files go, and forgets that it shared others.
func (g *Guard) disown(ctx context.Context, uuid string, reason keeper.ReleaseReason) {
	for _, h := range g.holds.deleted() {
		if slices.Contains(h.Owners, uuid) {
			g.letGo(ctx, h, reason, uuid)
		}
	}
	g.holds.each(func(h *guardHold) {
		if h.Deleted.IsZero() && h.Role == RoleBacking {
			h.Owners = slices.DeleteFunc(h.Owners, func(o string) bool { return o == uuid })
		}
	})
}

// letGo lets a deleted file go for an instance, and says so when that frees it.
func (g *Guard) letGo(ctx context.Context, h guardHold, reason keeper.ReleaseReason, owners ...string) {
	freed, err := g.holds.letGo(h.inode(), reason, owners...)
	if err != nil {
		g.problem("shelf", fmt.Errorf("%s may still take its room: %w", h.Path, err))
	}
	if freed {
		zerolog.Ctx(ctx).Info().Str("path", h.Path).Strs("instances", h.Owners).Str("reason", string(reason)).
			Str("size", humanize.IBytes(uint64(h.bytes))).Msg("deleted file let go")
	}
}

// judgeHold decides about one deleted file for those of its owners that libvirt knows.
func (j *judgement) judgeHold(ctx context.Context, h guardHold) {
	settled := time.Since(h.Deleted) >= j.g.settled()
	if len(h.Owners) == 0 {
		if settled && !j.anyMisses() {
			j.g.letGo(ctx, h, keeper.ReleasedUnneeded)
		}
		return
	}
	for _, uuid := range h.Owners {
		if j.inHand[uuid] != "" {
			continue
		}
		if j.isProven(h) {
			j.g.letGo(ctx, h, keeper.ReleasedProven, uuid)
			continue
		}
		i := j.known(uuid)
		if i == nil || i.Verdict == VerdictUnknown {
			continue
		}
		if needs(*i, h) {
			if i.PID == 0 && !h.Needed && missesFiles(*i) && j.isIncident(ctx, *i, settled) {
				j.g.begin(ctx, *i)
			}
			continue
		}
		// A console log is made anew at every start, in the middle of an incident too.
		oldLog := h.Role == RoleConsoleLog && i.PID != 0 && intact(*i)
		if !settled || !oldLog && (h.Needed || j.g.incident(uuid).UUID != "") {
			continue
		}
		if reason := j.unneeded(ctx, *i, h); reason != "" {
			j.g.letGo(ctx, h, reason, uuid)
		}
	}
}

// anyMisses is true while any instance misses files: then what nobody is known to
// need may be one of them.
func (j *judgement) anyMisses() bool {
	j.g.mu.Lock()
	open := len(j.g.incidents)
	j.g.mu.Unlock()
	return open > 0 || slices.ContainsFunc(j.report.Instances, func(i Instance) bool {
		return missesFiles(i) || i.Verdict == VerdictLost || i.Verdict == VerdictUnknown
	})
}

// needs is true when a scan found that the file is the one that an instance has lost.
func needs(i Instance, h guardHold) bool {
	return slices.ContainsFunc(i.Files, func(f File) bool { return (inode{f.Device, f.Inode}) == h.inode() && f.Lost() })
}

// isIncident says whether a stopped instance that misses a file is one that
// exists: Nova deletes an instance's files before its domain.
func (j *judgement) isIncident(ctx context.Context, i Instance, settled bool) bool {
	switch j.word(ctx, i.UUID) {
	case wordHere:
		return true
	case wordOffline, wordUnknown:
		return settled
	}
	return false
}

// unneeded says why an instance that libvirt knows does not need a deleted file
// that is none of its own any more; empty when that is not sure.
func (j *judgement) unneeded(ctx context.Context, i Instance, h guardHold) keeper.ReleaseReason {
	if i.PID != 0 {
		return keeper.ReleasedUnneeded // its QEMU runs, and has other files open
	}
	switch j.word(ctx, i.UUID) {
	case wordHere:
		return keeper.ReleasedUnneeded
	case wordOffline:
		if time.Since(h.Deleted) > j.g.optionsNow().Grace {
			return keeper.ReleasedGrace
		}
	}
	return ""
}

// isProven is true when a run has put the file's content back, and that stands.
func (j *judgement) isProven(h guardHold) bool {
	p, ok := j.proven[provenKey{h.Path, h.inode().Key()}]
	if !ok {
		return false
	}
	at, err := j.g.root.Lstat(h.Path)
	return err == nil && at.Dev == p.Device && at.Ino == p.Inode
}

// keepFree lets deleted files go, the oldest first, that no instance is known to
// need, while their file system is fuller than it may be: a full one pauses every
// healthy guest on it.
func (g *Guard) keepFree(ctx context.Context) {
	least := g.optionsNow().MinFree
	full := map[uint64]bool{}
	for _, h := range g.holds.deleted() {
		var st unix.Statfs_t
		if keeper.Control(h.file, func(fd int) error { return unix.Fstatfs(fd, &st) }) != nil || st.Blocks == 0 || float64(st.Bavail)/float64(st.Blocks) >= least {
			full[h.Device] = false
			continue
		}
		if h.Needed {
			full[h.Device] = true
			continue
		}
		zerolog.Ctx(ctx).Warn().Str("path", h.Path).Msg("free space is under the floor")
		g.letGo(ctx, h, keeper.ReleasedSpace)
	}
	var err error
	for _, is := range full {
		if is {
			err = errors.New("free space is under the floor, and the deleted files that are held are needed by instances: make room, or rescue them")
		}
	}
	g.problem("space", err)
}

// endIncidents ends those of which nothing is needed any more, and brings the
// others up to date.
func (j *judgement) endIncidents(ctx context.Context) {
	g := j.g
	needed := map[string]bool{}
	for _, h := range g.holds.deleted() {
		if h.Needed && h.Role != RoleConsoleLog {
			for _, uuid := range h.Owners {
				needed[uuid] = true
			}
		}
	}
	g.mu.Lock()
	var all []string
	for uuid := range g.incidents {
		all = append(all, uuid)
	}
	g.mu.Unlock()
	for _, uuid := range all {
		i := j.known(uuid)
		back := i != nil && intact(*i)
		g.describe(uuid)
		g.mu.Lock()
		incident := *g.incidents[uuid]
		g.incidents[uuid].Replaced = back
		over := !needed[uuid] && (i == nil || !missesFiles(*i))
		if over {
			delete(g.incidents, uuid)
			r := g.records[uuid]
			r.Incident = nil
			if _, ok := g.records[uuid]; ok {
				g.records[uuid] = r
			}
		}
		g.mu.Unlock()
		if over {
			zerolog.Ctx(ctx).Info().Str("instance", uuid).Str("domain", incident.Domain).Msg("the incident is over")
		}
		if err := g.saveRecord(uuid); err != nil {
			g.problem("save", err)
		}
	}
	j.unlockAll(ctx)
}

// unlockAll undoes the guard's locks of instances that are back, and tries again
// what Nova did not answer.
func (j *judgement) unlockAll(ctx context.Context) {
	g := j.g
	var due []string
	g.mu.Lock()
	for uuid, r := range g.records {
		if i := j.known(uuid); r.Lock != "" && i != nil && intact(*i) {
			due = append(due, uuid)
		}
	}
	g.mu.Unlock()
	for _, uuid := range due {
		g.unlock(ctx, uuid, j.inHand)
		if err := g.saveRecord(uuid); err != nil {
			g.problem("save", err)
		}
	}
}

func intact(i Instance) bool { return i.Verdict == VerdictIntact || i.Verdict == VerdictUnaffected }

// dropRecords forgets instances of which there is nothing any more.
func (j *judgement) dropRecords() {
	owned := j.g.holds.owners()
	j.g.mu.Lock()
	var drop []string
	for uuid, r := range j.g.records {
		if j.known(uuid) == nil && !owned[uuid] && !r.Gone.IsZero() {
			drop = append(drop, uuid)
		} else if j.known(uuid) == nil && r.Gone.IsZero() {
			r.Gone = time.Now().UTC()
			j.g.records[uuid] = r
		}
	}
	j.g.mu.Unlock()
	for _, uuid := range drop {
		if err := j.g.dropRecord(uuid); err != nil {
			j.g.problem("save", err)
		}
	}
}
