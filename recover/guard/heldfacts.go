package guard

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// facts finds out about a deleted file what the table needs, for one of its owners; empty
// for a file of nobody's.
func (j *judgement) facts(ctx context.Context, h guardHold, uuid string) verdict.HeldFacts {
	f := verdict.HeldFacts{
		Written:   j.isWritten(h),
		Settled:   j.isSettled(h),
		Elsewhere: j.isAnyMissingFiles(uuid),
	}
	if uuid == "" {
		f.Owner = verdict.Unclaimed
		return f
	}
	i := j.known(uuid)
	f.Proven = j.isProven(h)
	f.Open = i != nil && i.HasOpen(h.inode())
	_, inIncident := j.incidents.get(uuid)
	f.Wanted = h.Needed || inIncident
	switch {
	case j.inHand[uuid] != "":
		f.Owner = verdict.Unsure
	case i == nil:
		f.Owner = verdict.Gone
		f.Wanted = f.Wanted || j.isWanted(uuid)
		f.Orderly, f.GraceOver = j.isOrderly(uuid), j.isGraceOver(uuid)
	case i.Verdict == recover.VerdictUnknown:
		f.Owner = verdict.Unsure // its QEMU may write it
	case hasLost(*i, h):
		f.Owner = verdict.Missing
	case isInDoubt(*i):
		f.Owner = verdict.Doubtful
	case i.PID != 0:
		f.Owner = verdict.Running
	default:
		f.Owner = verdict.Off
		f.GraceOver = time.Since(h.Deleted) > j.options().Grace
	}
	// A console log is made anew at every start, in the middle of an incident too.
	f.Replaced = wasOfRun(h.Path) || h.Role == recover.RoleConsoleLog && i != nil && i.PID != 0 && i.IsWhole() ||
		i != nil && standsForBoot(*i, h.Path)
	if f.Settled && (f.Owner == verdict.Gone || f.Owner == verdict.Off) {
		f.Nova = wordOf(j.answer(ctx, uuid))
	}
	return f
}

// standsForBoot is true for the path of a kernel or ramdisk at which a file stands that the
// instance's next start can read: Nova fetches one again, and no guest writes any.
func standsForBoot(i recover.Instance, path string) bool {
	return i.IsWhole() && i.Definition.IsBootFile(path) &&
		!slices.ContainsFunc(i.NextStart, func(d recover.Divergence) bool { return d.Next == path }) &&
		!slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Path == path })
}

// isOrderly is true for an instance that libvirt does not know, and that was deleted in order.
func (j *judgement) isOrderly(uuid string) bool {
	r, _ := j.records.get(uuid)
	own := j.holds.of(uuid)
	if slices.ContainsFunc(own, func(h guardHold) bool { return h.Role == recover.RoleNVRAM }) && !j.isDirectoryGone(uuid) {
		return false // a hard reboot that fails undefines the domain with its variables, too
	}
	return j.known(uuid) == nil && !j.isWanted(uuid) && isOrderly(uuid, own, r.Gone)
}

// isDirectoryGone is true for an instance of which the instances directory, which is there, has
// none any more. A volume-backed one has no other files.
func (j *judgement) isDirectoryGone(uuid string) bool {
	_, err := j.root.Lstat(j.instances)
	_, gone := j.root.Lstat(filepath.Join(j.instances, uuid))
	return err == nil && errors.Is(gone, fs.ErrNotExist)
}

// wordOf is Nova's answer as the table takes it.
func wordOf(a novaAnswer) verdict.Word {
	switch a {
	case novaOffline:
		return verdict.Unasked
	case novaHere:
		return verdict.Here
	case novaDeleted:
		return verdict.Deleted
	case novaMoved:
		return verdict.OnOthers
	}
	return verdict.Silent
}

// act lets a deleted file go for an owner, or for all when none is named, if it is not held.
func (j *judgement) act(ctx context.Context, h guardHold, result verdict.HeldResult, owners ...string) {
	if result == verdict.Spare {
		j.spare[h.inode()] = append(j.spare[h.inode()], owners...)
	}
	if result.IsHeld() || j.isOpenForWriting(ctx, h) {
		return
	}
	reason := map[verdict.HeldResult]keeper.ReleaseReason{
		verdict.Restored:  keeper.ReleasedProven,
		verdict.Disowned:  keeper.ReleasedDeleted,
		verdict.Moved:     keeper.ReleasedMoved,
		verdict.Unneeded:  keeper.ReleasedUnneeded,
		verdict.Forgotten: keeper.ReleasedGrace,
	}[result]
	j.letGo(ctx, h, reason, owners...)
}

// isOpenForWriting is true while any process but this one has the file open for writing, also
// one of a domain that libvirt has lost; in doubt too. A console log is none that counts.
func (j *judgement) isOpenForWriting(ctx context.Context, h guardHold) bool {
	if h.Role == recover.RoleConsoleLog {
		return false
	}
	written, err := j.writers.has(ctx, h.inode())
	return err != nil || written
}
