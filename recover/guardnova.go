package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// novaWord is what Nova says of an instance whose domain or files are gone.
type novaWord int

const (
	wordOffline novaWord = iota // the guard works without Nova
	wordUnknown                 // Nova, or the instance's cell, does not answer: never "deleted"
	wordHere                    // it exists on this host, and nothing is under way
	wordBusy                    // a task is under way: perhaps the one that deletes it
	wordMoved                   // it exists on another host, or on none (shelved)
	wordDeleted                 // Nova itself has it among the deleted ones
)

// novaTime bounds one question to Nova, so that one that hangs does not keep the
// others waiting.
const novaTime = 20 * time.Second

// word asks Nova about an instance, once per scan.
func (j *judgement) word(ctx context.Context, uuid string) novaWord {
	if w, ok := j.words[uuid]; ok {
		return w
	}
	w := j.g.ask(ctx, uuid)
	j.words[uuid] = w
	return w
}

func (g *Guard) ask(ctx context.Context, uuid string) novaWord {
	cloud, err := g.nova(ctx)
	if cloud == nil {
		if err != nil {
			return wordUnknown
		}
		return wordOffline
	}
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	server, err := cloud.Server(ctx, uuid)
	if errors.Is(err, ErrNoInstance) || errors.Is(err, ErrForbidden) {
		// Not found may mean that it is not shown to this user. Only Nova's own list
		// of what was deleted is proof.
		var deleted bool
		if deleted, err = cloud.Deleted(ctx, uuid); err == nil && deleted {
			g.problem("nova", nil)
			return wordDeleted
		}
		if err == nil {
			err = fmt.Errorf("%w: it knows no instance %s, and has none of that UUID among the deleted ones: the user may have no right to see them, or they were archived (os-rescue guard release %s lets its files go)", ErrForbidden, uuid, uuid)
		}
	}
	g.problem("nova", err)
	switch {
	case err != nil || server.Unknown:
		return wordUnknown
	case server.TaskState != "", server.VMState == VMDeleted, server.VMState == VMShelvedOffloaded && server.Host != "":
		return wordBusy
	case server.Host == g.e.Settings.Host:
		g.confirmHost()
		return wordHere
	case server.Host != "" && !g.hostConfirmed():
		g.problem("host", fmt.Errorf("Nova has %s on host %q, and has never been seen to have an instance on %s: is that this host's name in Nova (host in the configuration)? Until then nothing is taken for moved", uuid, server.Host, g.e.Settings.Host)) //nolint:staticcheck // a name
		return wordUnknown
	default:
		return wordMoved
	}
}

// learnHost finds out whether Nova calls this host what the configuration calls
// it, by an instance that libvirt has here: a purge takes nova.conf along, and the
// machine's own name may be another. Under a wrong name every instance would seem
// to be on another host.
func (g *Guard) learnHost(ctx context.Context, report Report) {
	if g.hostConfirmed() || g.optionsNow().SignIn == nil {
		return
	}
	const most = 3 // a scan
	n := slices.IndexFunc(report.Instances, func(i Instance) bool { return !i.forgotten && i.domain.Nova != nil })
	for ; n >= 0 && n < min(len(report.Instances), most) && !g.hostConfirmed(); n++ {
		if i := report.Instances[n]; !i.forgotten && i.domain.Nova != nil {
			g.ask(ctx, i.UUID)
		}
	}
}

func (g *Guard) hostConfirmed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.host == g.e.Settings.Host
}

func (g *Guard) confirmHost() {
	g.mu.Lock()
	g.host = g.e.Settings.Host
	delete(g.problems, "host")
	g.mu.Unlock()
}

// nova returns the connection to Nova; nil and no error when the guard works
// without.
func (g *Guard) nova(ctx context.Context) (Cloud, error) {
	g.signing.Lock()
	defer g.signing.Unlock()
	g.mu.Lock()
	cloud, signIn, since := g.cloud, g.options.SignIn, g.signInFailed
	g.mu.Unlock()
	if cloud != nil || signIn == nil {
		return cloud, nil
	}
	if time.Since(since) < novaTime {
		return nil, ErrCloudUnavailable // just tried
	}
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	cloud, err := signIn(ctx)
	if err != nil {
		g.problem("nova", fmt.Errorf("no sign-in to Nova, so that nothing is taken for deleted and nothing is locked: %w", err))
		g.mu.Lock()
		g.signInFailed = time.Now()
		g.mu.Unlock()
		return nil, err
	}
	g.problem("nova", nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cloud = cloud
	return cloud, nil
}

// guardLockReason begins the reason of a guard's lock, by which it is known again.
const guardLockReason = "os-rescue guard"

// lockSoon has instances locked in Nova now, where that is wanted.
func (g *Guard) lockSoon() {
	select {
	case g.lockNow <- struct{}{}:
	default:
	}
}

// lockOn locks instances when their files are deleted: their owner's reboot would
// end their QEMU. What could not be locked is tried again.
func (g *Guard) lockOn(ctx context.Context) {
	retry := time.NewTicker(DefaultGuardInterval)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.lockNow:
		case <-retry.C:
		}
		g.lockAll(ctx)
	}
}

func (g *Guard) lockAll(ctx context.Context) {
	if !g.optionsNow().Lock {
		return
	}
	var due []string
	g.mu.Lock()
	for uuid, i := range g.incidents {
		if !i.Locked && !i.Replaced {
			due = append(due, uuid)
		}
	}
	g.mu.Unlock()
	if len(due) == 0 {
		return
	}
	slices.Sort(due)
	cloud, err := g.nova(ctx)
	if cloud == nil {
		if err == nil {
			err = errors.New("guard.lock is set, and guard.os_cloud names no credentials")
		}
		g.problem("lock", fmt.Errorf("%d instances whose files are deleted are not locked in Nova: %w", len(due), err))
		return
	}
	var group errgroup.Group
	group.SetLimit(novaParallel)
	for _, uuid := range due {
		group.Go(func() error { return g.lock(ctx, cloud, uuid) })
	}
	err = group.Wait()
	if err != nil {
		err = fmt.Errorf("not every instance whose files are deleted could be locked in Nova: %w", err)
	}
	g.problem("lock", err)
}

// lock locks one instance, unless somebody has. The record is written first: a
// guard that dies in between knows its lock again.
func (g *Guard) lock(ctx context.Context, cloud Cloud, uuid string) error {
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	server, err := cloud.Server(ctx, uuid)
	if err != nil {
		return err
	}
	if server.Unknown {
		return errCellDown
	}
	if own := cloud.OwnProject(); own != "" && own == server.ProjectID {
		return fmt.Errorf("%w: the credentials are of the instance's own project, and their lock would be an owner's", ErrRefused)
	}
	if !server.Locked {
		reason := guardLockReason + ": its files were deleted; a reboot or stop now would lose them"
		g.setLock(uuid, reason)
		if err := g.saveRecord(uuid); err != nil {
			return err
		}
		if err := cloud.Lock(ctx, uuid, reason); err != nil {
			if !errors.Is(err, ErrCloudUnavailable) { // which may have been carried out
				g.setLock(uuid, "")
			}
			return err
		}
		zerolog.Ctx(ctx).Warn().Str("instance", uuid).Str("name", server.Name).Msg("locked in Nova, so that its owner can't reboot or stop it")
	}
	g.mu.Lock()
	if i := g.incidents[uuid]; i != nil {
		i.Locked = true
	}
	g.mu.Unlock()
	return nil
}

func (g *Guard) setLock(uuid, reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, ok := g.records[uuid]; ok {
		r.Lock = reason
		g.records[uuid] = r
	}
}

// unlock undoes the guard's own lock, and nobody else's: not while a run is at the
// instance.
func (g *Guard) unlock(ctx context.Context, uuid string, inHand map[string]string) {
	g.mu.Lock()
	reason := g.records[uuid].Lock
	g.mu.Unlock()
	if reason == "" || inHand[uuid] != "" {
		return
	}
	cloud, _ := g.nova(ctx) // why not is a problem of its own
	if cloud == nil {
		g.problem("unlock "+uuid, fmt.Errorf("%s is back and still locked by the guard: openstack server unlock %s", uuid, uuid))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	server, err := cloud.Server(ctx, uuid)
	switch {
	case errors.Is(err, ErrNoInstance):
		err = nil
	case err != nil:
	case server.Unknown:
		err = errCellDown
	case server.Locked && (!cloud.KeepsReasons() || server.LockedReason == reason):
		err = cloud.Unlock(ctx, uuid)
	}
	if err != nil {
		g.problem("unlock "+uuid, fmt.Errorf("%s is back and still locked by the guard: %w", uuid, err))
		return
	}
	g.problem("unlock "+uuid, nil)
	g.setLock(uuid, "")
	g.mu.Lock()
	if i := g.incidents[uuid]; i != nil {
		i.Locked = false
	}
	g.mu.Unlock()
}
