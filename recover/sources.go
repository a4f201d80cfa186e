package recover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// sources are the open inodes that a run copies from, by key.
type sources struct {
	mu   sync.Mutex
	open map[string]copier.Source
}

func (s *sources) add(key string, src copier.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[key]; ok {
		src.File.Close()
		return
	}
	s.open[key] = src
}

func (s *sources) get(key string) (copier.Source, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src, ok := s.open[key]
	return src, ok
}

// drop lets one inode go: only then does its file system get the room back.
func (s *sources) drop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src, ok := s.open[key]; ok {
		src.File.Close()
		delete(s.open, key)
	}
}

// Close lets everything go.
func (s *sources) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, src := range s.open {
		src.File.Close()
		delete(s.open, key)
	}
}

// pin opens every held file of an instance for this run, and has the keeper hold
// those that have lost their names, whether or not the run can rescue them.
func (s *Session) pin(ctx context.Context, i Instance) error {
	record := Record{Instance: i.UUID, Step: stepPin, Phase: PhaseBegin}
	if err := s.journal.Write(record, nil); err != nil {
		return err
	}
	keys := []string{}
	for _, f := range slices.Concat(i.Files, i.nameless) {
		if len(f.Holders) == 0 {
			continue
		}
		key := inodeKey(f.Device, f.Inode)
		src, err := openHeld(f)
		if errors.Is(err, copier.ErrDirectRefused) {
			// Good enough to keep the inode alive; nothing is read through it.
			held := f
			held.Holders = slices.Clone(f.Holders)
			for n := range held.Holders {
				held.Holders[n].Direct = false
			}
			if src, err = openHeld(held); err == nil {
				defer src.File.Close()
			}
		} else if err == nil {
			s.sources.add(key, src)
			src, _ = s.sources.get(key)
		}
		if err != nil {
			// The holder has let it go since the scan: the plan will say so.
			continue
		}
		if !f.unlinked || f.Proven {
			continue
		}
		if err := s.hold(ctx, i.UUID, key, f, src.File); err != nil {
			return err
		}
		keys = append(keys, key)
	}
	record.Phase = PhaseDone
	return s.journal.Write(record, keys)
}

func (s *Session) hold(ctx context.Context, uuid, key string, f File, file *os.File) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if err := s.startKeeper(ctx); err != nil {
		return err
	}
	meta, err := json.Marshal(pinMeta{Path: f.Path, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing, Run: s.plan.Run})
	if err == nil {
		err = s.keeper.Hold(ctx, uuid, key, meta, file)
	}
	if err != nil {
		return fmt.Errorf("%w: the keeper does not hold %s: %w", ErrUnusable, f.Path, err)
	}
	if !slices.Contains(s.foreign, uuid) {
		s.pinned = append(s.pinned, uuid)
	}
	return nil
}

// startKeeper connects to the host's keeper, started if none runs, and notes
// whose pins it has already: those are not this run's to let go.
func (s *Session) startKeeper(ctx context.Context) error {
	if s.keeper != nil {
		return nil
	}
	c, err := keeper.Start(ctx, keeper.Options{Dir: s.e.Settings.StateDir, Command: s.e.Settings.KeeperCommand})
	if err != nil {
		return fmt.Errorf("%w: no keeper: %w", ErrUnusable, err)
	}
	s.keeper = c
	holds, err := c.List(ctx)
	if err != nil {
		return fmt.Errorf("%w: the keeper does not answer: %w", ErrUnusable, err)
	}
	for _, h := range holds {
		s.foreign = append(s.foreign, h.Owners...)
	}
	return nil
}

// connectKeeper connects to a keeper that runs already; none is no error.
func (s *Session) connectKeeper(ctx context.Context) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	return s.reconnectKeeper(ctx)
}

func (s *Session) reconnectKeeper(ctx context.Context) error {
	if s.keeper != nil {
		return nil
	}
	c, err := keeper.Connect(ctx, s.e.Settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: the keeper does not answer: %w", ErrUnusable, err)
	}
	s.keeper = c
	return nil
}

// unpin lets the keeper let go of an instance's files, and lets go of them itself.
func (t *task) unpin(ctx context.Context) error {
	return t.step(ctx, stepUnpin, "", func() error {
		if err := t.s.release(ctx, t.ip.UUID); err != nil {
			return err
		}
		if err := t.guardLetsGo(ctx); err != nil {
			// It finds out by itself, from the journal.
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the guard may hold what is back for some seconds more")
		}
		for _, f := range t.ip.Files {
			if f.Writable {
				t.s.sources.drop(f.Key())
			}
		}
		return nil
	})
}

// guardLetsGo tells a guard that the instance's files are back, proven. One that
// does not run holds nothing.
func (t *task) guardLetsGo(ctx context.Context) error {
	var keys []string
	for _, f := range t.ip.Files {
		if key := f.Key(); key != "" {
			keys = append(keys, key)
		}
	}
	c, err := keeper.ConnectGuard(ctx, t.s.e.Settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) || len(keys) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return c.ReleaseFor(ctx, keeper.ReleasedProven, t.ip.UUID, keys...)
}

// guardPIDs is the process of the guard, if one runs: that it has a file open is no
// use of it.
func (s *Session) guardPIDs() []int {
	c, err := keeper.ConnectGuard(context.Background(), s.e.Settings.StateDir)
	if err != nil {
		return nil
	}
	defer c.Close()
	return []int{c.PID()}
}

// release lets the keeper let go of all that it holds for an instance. A keeper
// that is gone holds nothing.
func (s *Session) release(ctx context.Context, uuid string) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	var err error
	for range 2 {
		if err := s.reconnectKeeper(ctx); err != nil || s.keeper == nil {
			return err
		}
		err = s.keeper.Release(ctx, uuid)
		if !errors.Is(err, keeper.ErrNoKeeper) {
			return err
		}
		s.keeper.Close()
		s.keeper = nil
	}
	return err
}

// releaseIntact lets go of what an earlier run pinned for instances that have
// come into order since, by whatever way.
func (s *Session) releaseIntact(ctx context.Context, report Report) error {
	if err := s.connectKeeper(ctx); err != nil || s.keeper == nil {
		return err
	}
	holds, err := s.keeper.List(ctx)
	if err != nil {
		return fmt.Errorf("%w: the keeper does not answer: %w", ErrUnusable, err)
	}
	unsettled, err := s.e.unsettled(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		s.foreign = append(s.foreign, h.Owners...)
	}
	proven, err := s.e.provenFiles()
	if err != nil {
		return err
	}
	for _, i := range report.Instances {
		if i.Verdict != VerdictIntact || i.PID == 0 || unsettled[i.UUID] != "" {
			continue
		}
		for _, h := range holds {
			if !slices.Contains(h.Owners, i.UUID) || !inService(i, h, proven) {
				continue
			}
			if err := s.keeper.Release(ctx, i.UUID, h.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// inService is true when the instance runs on the proven copy of a pinned inode.
// That it is intact says nothing of the pin: somebody may have started it on
// older files.
func inService(i Instance, h keeper.Hold, proven provenFiles) bool {
	var meta pinMeta
	if json.Unmarshal(h.Meta, &meta) != nil {
		return false
	}
	for _, f := range i.Files {
		if f.Path != meta.Path {
			continue
		}
		p, ok := proven[provenKey{f.Path, h.Key}]
		return f.Proven || ok && p.Device == f.Device && p.Inode == f.Inode
	}
	return false
}

// source returns the open inode to copy a planned file from: the one that Prepare
// opened, the keeper's, or a backup's file. fs.ErrNotExist when nobody has it.
func (s *Session) source(ctx context.Context, f FilePlan) (copier.Source, error) {
	key := f.Key()
	if f.Stored != "" {
		key = "stored:" + f.Stored
	}
	if src, ok := s.sources.get(key); ok {
		return src, nil
	}
	if f.Stored != "" {
		src, err := openStored(filepath.Join(s.plan.Options.BackupDir, f.Stored))
		if err != nil {
			return src, err
		}
		s.sources.add(key, src)
		src, _ = s.sources.get(key)
		return src, nil
	}
	if err := s.connectKeeper(ctx); err != nil {
		return copier.Source{}, err
	}
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if s.keeper == nil || !s.sameBoot {
		return copier.Source{}, fmt.Errorf("%s: %w", f.Path, os.ErrNotExist)
	}
	file, err := s.keeper.Open(ctx, f.Key())
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
	s.sources.add(f.Key(), copier.Source{File: file, Direct: flags&unix.O_DIRECT != 0})
	src, _ := s.sources.get(f.Key())
	return src, nil
}
