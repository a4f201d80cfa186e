package leftover

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Hold is a file that the keeper holds.
type Hold struct {
	pin.KeeperHold
	// Run is the unfinished run that works with it: only that lets it go. Empty when none does.
	Run string `json:"run,omitempty"`
	// Last is true when letting it go loses its content for good: the instance's QEMU, or
	// virtlogd, or the guard, does not have it open, and no proven copy of it has its path.
	Last bool `json:"last"`
	// KeptFor are the instances among Instances that were not asked for: for them it stays held.
	KeptFor  []string `json:"kept_for,omitempty"`
	Released bool     `json:"released"` // for those that were asked for
}

// owners are the instances that it is let go for.
func (h Hold) owners() []string {
	return slices.DeleteFunc(slices.Clone(h.Instances), func(i string) bool { return slices.Contains(h.KeptFor, i) })
}

// Holds lists what the keeper holds for instances, by UUID; all that it holds when none is
// named. A file that is held for others too is listed, and stays held for them. It changes
// nothing. The error says what can't be looked at; keeper.ErrNoKeeper when
// no keeper runs.
func Holds(ctx context.Context, settings recover.Settings, uuids []string) ([]Hold, error) {
	status, err := pin.Keeper(ctx, settings.StateDir)
	if err != nil {
		return nil, err
	}
	for _, other := range status.Others {
		if other.Own && other.Silent && !status.Running {
			return nil, fmt.Errorf("%w: the keeper of process %d, which holds %d files: kill -CONT %d may wake it",
				keeper.ErrSilent, other.PID, len(other.Holds), other.PID)
		}
	}
	if !status.Running {
		return nil, keeper.ErrNoKeeper
	}
	r := runs.Of(settings.StateDir)
	unsettled, err := r.Unsettled(ctx)
	if err != nil {
		return nil, err
	}
	published, err := r.Published()
	if err != nil {
		return nil, err
	}
	root, err := beneath.OpenRoot(settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer root.Close()
	list := []Hold{}
	files := map[recover.Inode]bool{}
	for _, h := range status.Holds {
		if len(uuids) > 0 && !slices.ContainsFunc(h.Instances, func(i string) bool { return slices.Contains(uuids, i) }) {
			continue
		}
		one := Hold{KeeperHold: h, Last: true}
		if len(uuids) > 0 {
			one.KeptFor = slices.DeleteFunc(slices.Clone(h.Instances), func(i string) bool { return slices.Contains(uuids, i) })
		}
		for _, uuid := range one.owners() {
			one.Run = cmp.Or(one.Run, unsettled[uuid])
		}
		inode, ok := recover.ParseKey(h.Key)
		if ok {
			files[inode] = true
			one.Last = len(one.KeptFor) == 0 && !isBack(root, published, h.Path, inode)
		}
		list = append(list, one)
	}
	open, err := openElsewhere(ctx, root, settings, files, list)
	if err != nil {
		return nil, err
	}
	for n := range list {
		inode, _ := recover.ParseKey(list[n].Key)
		list[n].Last = list[n].Last && !open[inode]
	}
	return list, nil
}

// isBack is true when a run has put the file's content back, and that stands.
func isBack(root *beneath.Root, published runs.Published, path string, file recover.Inode) bool {
	p, ok := published.Copy(path, file)
	if !ok {
		return false
	}
	at, err := root.Lstat(path)
	return err == nil && p.Identity().Is(at.Inode(), false) && p.IsUnwritten(at)
}

// usersOf returns who may run a QEMU: root, or the user that its disks belong to. Anybody's process can
// have a UUID on its command line, and a readable file open.
func usersOf(root *beneath.Root, settings recover.Settings) func(p *procfs.Process) bool {
	user, err := root.LookupUser(settings.Owners.Disk.User)
	return func(p *procfs.Process) bool { return p.IsUser(0) || err == nil && p.IsUser(user) }
}

// openElsewhere returns those of the files that live on without the keeper: a QEMU of one of
// their instances, virtlogd or the guard has them open.
func openElsewhere(
	ctx context.Context, root *beneath.Root, settings recover.Settings, files map[recover.Inode]bool, holds []Hold,
) (map[recover.Inode]bool, error) {
	guard := keeper.GuardPID(ctx, settings.StateDir)
	open := map[recover.Inode]bool{}
	tree, err := procfs.OpenRoot(settings.Root)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	isQEMUs := usersOf(root, settings)
	isLogDaemon := func(p *procfs.Process) bool {
		is, _ := procfs.IsLogDaemon(p, tree, settings.InstancesPath)
		return is
	}
	err = procfs.Holders(ctx, procfs.Dir, files, func(file recover.Inode, p *procfs.Process) {
		if open[file] {
			return
		}
		isGuard := guard != 0 && p.Identity.PID == guard
		open[file] = isGuard || isLogDaemon(p) || slices.ContainsFunc(holds, func(h Hold) bool {
			return h.Key == file.Key() && slices.ContainsFunc(h.Instances, func(uuid string) bool { return p.CheckQEMU(uuid) == nil && isQEMUs(p) })
		})
	})
	return open, err
}

// commandRelease is the holder of the lock that is no run.
const commandRelease recover.Command = "keeper release"

// Release has the keeper let go of the holds; with last also of last copies, whose content is
// lost for good then. What a run is not finished with stays. It returns the holds with Released
// set, as far as it came.
//
// Errors: recover.ErrRefused when something stays, recover.ErrBusy while a run is under way, and
// keeper.ErrNoKeeper.
func Release(ctx context.Context, settings recover.Settings, holds []Hold, last bool) ([]Hold, error) {
	lock, err := statedir.Dir(settings.StateDir).Lock(statedir.LockInfo{Command: commandRelease, PID: os.Getpid(), Since: time.Now().UTC()})
	if err != nil {
		return holds, err
	}
	defer statedir.Unlock(lock)
	keepers, err := keeper.Of(ctx, settings.StateDir)
	if err != nil {
		return holds, err
	}
	defer keeper.CloseAll(keepers)
	var asked []string
	for _, h := range holds {
		asked = append(asked, h.owners()...)
	}
	if len(asked) == 0 {
		return holds, nil
	}
	now, err := Holds(ctx, settings, asked)
	if err != nil {
		return holds, err
	}
	var stay []string
	for n := range holds {
		h := &holds[n]
		// The question may have stood for hours: its guest may have ended, or a run begun.
		at := slices.IndexFunc(now, func(fresh Hold) bool { return fresh.Key == h.Key && fresh.PID == h.PID })
		by := slices.IndexFunc(keepers, func(k keeper.Found) bool { return k.PID == h.PID && k.Client != nil })
		if at < 0 || by < 0 {
			continue // it was let go meanwhile
		}
		h.Run, h.Last, h.KeptFor = cmp.Or(now[at].Run, h.Run), h.Last || now[at].Last, now[at].KeptFor
		if h.Run != "" || h.Last && !last {
			stay = append(stay, whyHeld(*h))
			continue
		}
		for _, owner := range h.owners() {
			if err := keepers[by].Client.ReleaseFor(ctx, keeper.ReleasedByHand, owner, h.Key); err != nil {
				return holds, err
			}
		}
		h.Released = true
	}
	if len(stay) > 0 {
		return holds, fmt.Errorf("%w: not all was let go: %s", recover.ErrRefused, strings.Join(stay, "; "))
	}
	return holds, nil
}

func whyHeld(h Hold) string {
	if h.Run != "" {
		return fmt.Sprintf("%s is of run %s, which is not finished: os-rescue resume --abandon %s ends it", h.Path, h.Run, h.Run)
	}
	return h.Path + " is the last copy: rescue its instance, or lose it with --accept-loss last-copy"
}
