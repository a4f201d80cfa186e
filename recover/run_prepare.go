package recover

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

func (s *Session) prepare(ctx context.Context, command Command, o Options) error {
	if err := s.open(command); err != nil {
		return err
	}
	head := runHeader{Command: command, Mode: o.modeOf(command), Host: s.e.Settings.Host, PID: os.Getpid(), Options: o}
	var err error
	if head.BootID, err = bootID(procDir); err != nil {
		return err
	}
	if head.Run, err = s.state.newRun(s.started); err != nil {
		return err
	}
	s.plan.Run = head.Run
	if s.lock, err = s.state.lock(lockInfo{Run: head.Run, Command: command, PID: head.PID, Since: s.started}); err != nil {
		return err
	}
	if _, err := s.openJournal(head.Run, s.e.Failpoint); err != nil {
		return err
	}
	s.takeCustody(head.Run, true)
	if err := s.log.Write(Record{Step: stepRun, Phase: PhaseBegin}, head); err != nil {
		return err
	}
	return s.choosePinPlan(ctx, head.Run, head)
}

// open gets what every session needs before it knows its run.
func (s *Session) open(command Command) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: this needs root: it reads other users' descriptors and gives files to them", ErrUnusable)
	}
	if err := s.state.make(); err != nil {
		return err
	}
	var err error
	if s.root, err = beneath.OpenRoot(s.e.Settings.Root); err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	if command != CommandReboot { // which gives no file to anybody, and may run where nova is no user
		if s.owners, err = resolveOwners(s.e.Settings, s.root); err != nil {
			return err
		}
	}
	s.dirs = newDirectories(s.root, s.e.Settings)
	return nil
}

// openJournal opens the run's journal, and returns what is in it.
func (s *Session) openJournal(run string, failpoint func(string)) ([]Record, error) {
	log, records, err := openJournal(s.state.run(run), failpoint)
	s.log = log
	return records, err
}

// takeCustody makes the run ready to hold files. Its journal is open.
func (s *Session) takeCustody(run string, sameBoot bool) {
	s.pins = newCustody(custodyOptions{StateDir: s.e.Settings.StateDir, KeeperCommand: s.e.Settings.KeeperCommand,
		Run: run, SameBoot: sameBoot, Log: s.log})
}

// choosePinPlan fills the session in from a fresh scan. What the domains' own
// metadata says is meant is pinned before Nova is asked, however long that takes.
func (s *Session) choosePinPlan(ctx context.Context, id string, head runHeader) error {
	c := newChoice(s.e.Settings, s.e.scanner(), head.Command, head.Options)
	if err := c.scan(ctx); err != nil {
		return err
	}
	if err := s.releaseIntact(ctx, c.report); err != nil {
		return err
	}
	pinAll := func(instances []Instance) error {
		if head.Command == CommandReboot {
			return nil
		}
		return s.pins.pinAll(ctx, instances)
	}
	early, _ := fromScan(head.Options.Selection, c.report)
	if err := pinAll(early); err != nil {
		return err
	}
	if err := s.signIn(ctx, head.Command, head.Options); err != nil {
		return err
	}
	if err := c.choose(ctx, s.cloud); err != nil {
		return err
	}
	if err := pinAll(c.selected.here); err != nil {
		return err
	}
	if err := s.pins.releaseOthers(ctx, c.selected.here); err != nil {
		return err
	}
	plan, err := s.e.makePlan(ctx, s.cloud, head.Command, head.Options, c.selected, s.resuming)
	if err != nil {
		return err
	}
	plan.Run, plan.BootID = id, head.BootID
	s.plan = plan
	return s.log.Write(Record{Step: stepPlan, Phase: PhaseDone}, plan)
}

// signIn connects to Nova, where the run asks it.
func (s *Session) signIn(ctx context.Context, command Command, o Options) (err error) {
	s.cloud, err = s.e.signIn(ctx, command, o)
	return err
}

// releaseIntact releases what an earlier run pinned for instances that have come
// into order since, in whatever way.
func (s *Session) releaseIntact(ctx context.Context, report Report) error {
	holds, err := s.pins.earlier(ctx)
	if err != nil || len(holds) == 0 {
		return err
	}
	unsettled, err := s.e.runs().unsettled(ctx)
	if err != nil {
		return err
	}
	proven, err := s.e.runs().published()
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
			if err := s.pins.release(ctx, i.UUID, h.Key); err != nil {
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
