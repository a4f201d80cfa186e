package pin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/manifest"
)

// CustodyOptions are what a run's custody must know of it.
type CustodyOptions struct {
	StateDir      string          // where the keeper's socket is
	KeeperCommand []string        // starts a keeper
	Run           string          // the run's name
	SameBoot      bool            // the host was not booted since the run began: a key still names the same inode
	Log           *journal.Writer // the run's journal
	// Failpoint, if not nil, is called with keeperEnded before another keeper is started. The
	// tests stop a run there that they have killed.
	Failpoint func(point string)
}

// keeperEnded is the failpoint of a run whose keeper has ended, and that is about to have
// another one hold everything.
const keeperEnded = "keeper.ended"

// Custody keeps the inodes of one run alive: it holds them open itself, to copy
// from, and has the keeper hold those that have lost their names. It is safe for
// concurrent use, but for PinAll, ReleaseOthers, ReleaseOwn and Leave: one at a time.
type Custody struct {
	options CustodyOptions
	sources sources

	mu      sync.Mutex
	keeper  *keeper.Client
	spares  spares
	foreign []string // instances whose pins are older than this run
	own     []string // instances that this run has pinned
	tried   []string // instances whose lost files it has tried to pin

	stopWatching context.CancelFunc // of the keeper
}

// NewCustody returns the custody of a run that holds nothing yet.
func NewCustody(o CustodyOptions) *Custody {
	return &Custody{options: o, sources: sources{open: map[string]copier.Source{}}, spares: spares{}}
}

// PinAll pins instances, each only once in the life of the run. Errors are those of Pin.
func (c *Custody) PinAll(ctx context.Context, instances []recover.Instance) error {
	for _, i := range instances {
		if slices.Contains(c.tried, i.UUID) {
			continue
		}
		c.tried = append(c.tried, i.UUID)
		if err := c.Pin(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// Pin opens every held file of an instance for this run, and has the keeper hold
// those that have lost their names, whether or not the run can rescue them.
// ErrUnusable when the keeper can't hold them; other errors are those of the journal. A
// file that its holder has let go since the scan is no error: the plan says so.
func (c *Custody) Pin(ctx context.Context, i recover.Instance) error {
	record := journal.Record{Instance: i.UUID, Step: journal.StepPin, Phase: recover.PhaseBegin}
	if err := c.options.Log.Write(record, nil); err != nil {
		return err
	}
	keys := journal.Pinned{}
	for _, f := range slices.Concat(i.Files, i.Nameless) {
		if len(f.Holders) == 0 {
			continue
		}
		key := f.Identity().Key()
		src, err := Open(f)
		if errors.Is(err, copier.ErrDirectRefused) {
			// Good enough to keep the inode alive; nothing is read through it.
			if src, err = Open(buffered(f)); err == nil {
				defer src.File.Close()
			}
		} else if err == nil {
			src = c.sources.add(key, src)
		}
		if err != nil {
			// The holder has let it go since the scan: the plan will say so.
			continue
		}
		if !f.Unlinked || f.Proven {
			continue
		}
		if err := c.hold(ctx, i.UUID, key, f, src.File); err != nil {
			return err
		}
		keys = append(keys, key)
	}
	record.Phase = recover.PhaseDone
	return c.options.Log.Write(record, keys)
}

func (c *Custody) hold(ctx context.Context, uuid, key string, f recover.File, file *os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.start(ctx); err != nil {
		return err
	}
	meta, err := json.Marshal(Meta{Path: f.Path, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing, Run: c.options.Run})
	if err == nil {
		err = c.keeper.Hold(ctx, uuid, key, meta, file)
	}
	if isGone(err) { // another one holds this too
		c.disconnect()
		if err = c.start(ctx); err == nil {
			err = c.keeper.Hold(ctx, uuid, key, meta, file)
		}
	}
	if err == nil {
		err = c.spares.add(key, uuid, meta, file, f.Holders...)
	}
	if err != nil {
		return fmt.Errorf("%w: the keeper does not hold %s: %w", recover.ErrUnusable, f.Path, err)
	}
	if !slices.Contains(c.foreign, uuid) {
		c.own = append(c.own, uuid)
	}
	return nil
}

// start connects to the host's keeper, started if none runs, and notes whose pins
// it has already: those are not this run's to release.
func (c *Custody) start(ctx context.Context) error {
	if c.keeper != nil {
		return nil
	}
	if len(c.spares) > 0 {
		return c.ensure(ctx)
	}
	client, err := keeper.Start(ctx, keeper.Options{Dir: c.options.StateDir, Command: c.options.KeeperCommand})
	if err != nil {
		return fmt.Errorf("%w: no keeper: %w", recover.ErrUnusable, err)
	}
	c.use(ctx, client)
	_, err = c.list(ctx)
	return err
}

// list asks the keeper what it holds, notes whose that is, and keeps it open once more.
func (c *Custody) list(ctx context.Context) ([]keeper.Hold, error) {
	holds, err := c.keeper.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: the keeper does not answer: %w", recover.ErrUnusable, err)
	}
	for _, h := range holds {
		c.foreign = append(c.foreign, h.Owners...)
		if err := c.spareOf(ctx, h); err != nil {
			return nil, fmt.Errorf("%w: what the keeper holds can't be opened: %w", recover.ErrUnusable, err)
		}
	}
	return holds, nil
}

// spareOf opens once more what the keeper holds for runs before this one.
func (c *Custody) spareOf(ctx context.Context, h keeper.Hold) error {
	f, err := c.keeper.Open(ctx, h.Key)
	if errors.Is(err, os.ErrNotExist) {
		return nil // released meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for _, owner := range h.Owners {
		if err := c.spares.add(h.Key, owner, h.Meta, f); err != nil {
			return err
		}
	}
	return nil
}

// Connect connects to a keeper that runs already; none is no error, and one that does not
// answer is none.
func (c *Custody) Connect(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reconnect(ctx)
}

func (c *Custody) reconnect(ctx context.Context) error {
	if c.keeper != nil {
		return nil
	}
	client, err := keeper.Connect(ctx, c.options.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil
	}
	if errors.Is(err, keeper.ErrSilent) {
		return c.ensure(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: the keeper does not answer: %w", recover.ErrUnusable, err)
	}
	c.use(ctx, client)
	return nil
}

// Earlier returns what the keeper holds for runs before this one; none when no keeper
// runs. What keepers hold that have lost their place is given to the keeper first. Call it before
// the first pin. ErrUnusable when the keeper can't hold that.
func (c *Custody) Earlier(ctx context.Context) ([]keeper.Hold, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.takeOver(ctx); err != nil {
		return nil, err
	}
	if err := c.reconnect(ctx); err != nil || c.keeper == nil {
		return nil, err
	}
	return c.list(ctx)
}

// Release has the keeper release inodes of an instance, by key (recover.Inode.Key): all of
// them when none is given. A keeper that is gone holds nothing; one that does not answer holds on.
func (c *Custody) Release(ctx context.Context, uuid string, keys ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spares.release(uuid, keys...)
	return c.ask(ctx, func() error { return c.keeper.Release(ctx, uuid, keys...) })
}

// ask calls do when there is a keeper, and once more, with the next one, if that was just going.
func (c *Custody) ask(ctx context.Context, do func() error) (err error) {
	for range 2 {
		if err := c.reconnect(ctx); err != nil || c.keeper == nil {
			return err
		}
		if err = do(); !isGone(err) {
			return err
		}
		c.disconnect()
	}
	return err
}

// Held returns what the keeper holds for an instance, also of runs before this one. A keeper that
// is gone holds nothing.
func (c *Custody) Held(ctx context.Context, uuid string) (holds []keeper.Hold, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.ask(ctx, func() error {
		if holds, err = c.keeper.List(ctx); err != nil {
			return fmt.Errorf("%w: the keeper does not say what it holds: %w", recover.ErrUnusable, err)
		}
		return nil
	})
	return slices.DeleteFunc(holds, func(h keeper.Hold) bool { return !slices.Contains(h.Owners, uuid) }), err
}

// ReleaseOthers releases what this run has pinned of instances that are not among
// the selected ones. What nobody else has by now stays held.
func (c *Custody) ReleaseOthers(ctx context.Context, selected []recover.Instance) error {
	for _, uuid := range slices.Clone(c.own) {
		if slices.ContainsFunc(selected, func(i recover.Instance) bool { return i.UUID == uuid }) {
			continue
		}
		if !c.isLast(uuid) {
			if err := c.Release(ctx, uuid); err != nil {
				return err
			}
		}
		c.own = slices.DeleteFunc(c.own, func(p string) bool { return p == uuid })
	}
	return nil
}

// ReleaseOwn releases all that this run has pinned, even if ctx has ended. It goes on
// after an error. recover.ErrLastCopy for an instance of which something has no other holder by
// now: all of it stays held.
func (c *Custody) ReleaseOwn(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs error
	for _, uuid := range c.own {
		if c.isLast(uuid) {
			errs = errors.Join(errs, fmt.Errorf("%w: the process that had the lost files of %s open has ended meanwhile; %s: "+
				"os-rescue --instance %s brings them back", recover.ErrLastCopy, uuid, c.WhoHolds(ctx, uuid), uuid))
			continue
		}
		errs = errors.Join(errs, c.Release(ctx, uuid))
	}
	return errs
}

// isLast is true when a file that is held for an instance is not open any more in any of the
// processes that had it open when it was pinned.
func (c *Custody) isLast(uuid string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spares.isLast(uuid)
}

// Leave makes ReleaseOwn release nothing: what this run has pinned stays pinned.
func (c *Custody) Leave() { c.own = nil }

// Source returns the open inode to copy a planned file from: the one that the run has
// open, else the keeper's. The run keeps it open until Drop or Close. The error wraps
// fs.ErrNotExist when nobody has it, copier.ErrDirectRefused when it can't be read the way
// QEMU reads it, and ErrUnusable when the keeper does not answer.
func (c *Custody) Source(ctx context.Context, f recover.FilePlan) (copier.Source, error) {
	if src, ok := c.sources.get(f.Key()); ok {
		return src, nil
	}
	if err := c.Connect(ctx); err != nil {
		return copier.Source{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.options.SameBoot {
		return copier.Source{}, fmt.Errorf("%s: %w", f.Path, os.ErrNotExist)
	}
	file, err := c.heldFile(ctx, f)
	if err != nil {
		return copier.Source{}, fmt.Errorf("%s: %w", f.Path, err)
	}
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err == nil && f.Direct && flags&unix.O_DIRECT == 0 {
		err = copier.ErrDirectRefused
	}
	if err != nil {
		file.Close()
		return copier.Source{}, fmt.Errorf("%s: %w", f.Path, err)
	}
	return c.sources.add(f.Key(), copier.Source{
		File:      file,
		Direct:    flags&unix.O_DIRECT != 0,
		Duplicate: flags&unix.O_ACCMODE != unix.O_RDONLY, // else it shares with the keeper alone
	}), nil
}

// Stored returns the backup's file to copy a planned file from. The run keeps it open
// until Close. The errors are those of manifest.Open and Store.File.
func (c *Custody) Stored(o recover.Options, f recover.FilePlan) (copier.Source, error) {
	key := "stored:" + f.Stored
	if src, ok := c.sources.get(key); ok {
		return src, nil
	}
	store, err := manifest.Open(o.BackupDir, o.AcceptOwner)
	if err != nil {
		return copier.Source{}, err
	}
	defer store.Close()
	file, err := store.File(f.Stored)
	if err != nil {
		return copier.Source{}, err
	}
	return c.sources.add(key, copier.Source{File: file}), nil
}

// SameBoot is true while a number that the run noted names the same inode still.
func (c *Custody) SameBoot() bool { return c.options.SameBoot }

// Keep takes over an open file that the run has published, and keeps it open until Close:
// until then no other file has its number (Keeps).
func (c *Custody) Keep(at recover.Inode, file *os.File) {
	c.sources.add(publishedKey(at), copier.Source{File: file})
}

// Keeps is true for a file that the run has published, and has had open ever since.
func (c *Custody) Keeps(at recover.Inode) bool {
	_, ok := c.sources.get(publishedKey(at))
	return ok
}

func publishedKey(at recover.Inode) string { return "published:" + at.Key() }

// Drop closes a planned file's inode: only then its file system gets the room back.
func (c *Custody) Drop(f recover.FilePlan) { c.sources.drop(f.Key()) }

// Close closes what the run has open, and the connection to the keeper, which goes on
// holding what it holds.
func (c *Custody) Close() {
	c.sources.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disconnect()
	c.spares.close()
}
