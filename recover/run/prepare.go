package run

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/selection"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

func (s *Session) prepare(ctx context.Context, command recover.Command, o recover.Options) error {
	if err := s.open(command); err != nil {
		return err
	}
	head := journal.Header{
		Command: command,
		Mode:    o.ModeOf(command),
		Host:    s.e.Settings.Host,
		PID:     os.Getpid(),
		Options: o,
	}
	var err error
	if head.BootID, err = procfs.BootID(procfs.Dir); err != nil {
		return err
	}
	if head.Run, err = s.state.NewRun(s.started); err != nil {
		return err
	}
	s.plan.Run = head.Run
	if s.lock, err = s.state.Lock(statedir.LockInfo{Run: head.Run, Command: command, PID: head.PID, Since: s.started}); err != nil {
		return err
	}
	if _, err := s.openJournal(head.Run, s.e.Failpoint); err != nil {
		return err
	}
	s.takeCustody(head.Run, true)
	if err := s.log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseBegin}, head); err != nil {
		return err
	}
	return s.choosePinPlan(ctx, head.Run, head)
}

// open gets what every session needs before it knows its run.
func (s *Session) open(command recover.Command) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: this needs root: it reads other users' descriptors and gives files to them", recover.ErrUnusable)
	}
	if err := s.state.Make(); err != nil {
		return err
	}
	var err error
	if s.root, err = beneath.OpenRoot(s.e.Settings.Root); err != nil {
		return fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	if command != recover.CommandReboot { // which gives no file to anybody, and may run where nova is no user
		if s.owners, err = owners.Resolve(s.e.Settings, s.root); err != nil {
			return err
		}
	}
	s.dirs = staging.NewDirectories(s.root, s.e.Settings)
	return nil
}

// openJournal opens the run's journal, and returns what is in it.
func (s *Session) openJournal(run string, failpoint func(string)) ([]journal.Record, error) {
	log, records, err := journal.Open(s.state.Run(run), failpoint)
	s.log = log
	return records, err
}

// takeCustody makes the run ready to hold files. Its journal is open.
func (s *Session) takeCustody(run string, sameBoot bool) {
	s.pins = pin.NewCustody(pin.CustodyOptions{
		StateDir:      s.e.Settings.StateDir,
		KeeperCommand: s.e.Settings.KeeperCommand,
		Run:           run,
		SameBoot:      sameBoot,
		Log:           s.log,
	})
}

// choosePinPlan fills the session in from a fresh scan. It pins the instances that the
// domains' own metadata selects before it asks Nova, which may take long.
func (s *Session) choosePinPlan(ctx context.Context, id string, head journal.Header) error {
	c := selection.New(s.e.Settings, s.e.scannerOf(head.Command), head.Command, head.Options)
	if err := c.Scan(ctx); err != nil {
		return err
	}
	if err := s.releaseIntact(ctx, c.Report); err != nil {
		return err
	}
	pinAll := func(instances []recover.Instance) error {
		if head.Command == recover.CommandReboot {
			return nil
		}
		return s.pins.PinAll(ctx, instances)
	}
	early, _ := selection.FromScan(head.Options.Selection, c.Report)
	if err := pinAll(early); err != nil {
		return err
	}
	if err := s.signIn(ctx, head.Command, head.Options); err != nil {
		return err
	}
	if err := c.Choose(ctx, s.cloud); err != nil {
		return err
	}
	if err := pinAll(c.Selected.Here); err != nil {
		return err
	}
	if err := s.pins.ReleaseOthers(ctx, c.Selected.Here); err != nil {
		return err
	}
	plan, err := s.e.makePlan(ctx, s.cloud, head.Command, head.Options, c.Selected, s.resuming)
	if err != nil {
		return err
	}
	plan.Run, plan.BootID = id, head.BootID
	s.plan = plan
	return s.log.Write(journal.Record{Step: journal.StepPlan, Phase: recover.PhaseDone}, plan)
}

// signIn connects to Nova, where the run asks it.
func (s *Session) signIn(ctx context.Context, command recover.Command, o recover.Options) (err error) {
	s.cloud, err = s.e.signIn(ctx, command, o)
	return err
}

// releaseIntact releases what an earlier run pinned for instances that have come
// into order since, in whatever way.
func (s *Session) releaseIntact(ctx context.Context, report recover.Report) error {
	holds, err := s.pins.Earlier(ctx)
	if err != nil || len(holds) == 0 {
		return err
	}
	unsettled, err := s.e.runs().Unsettled(ctx)
	if err != nil {
		return err
	}
	proven, err := s.e.runs().Published()
	if err != nil {
		return err
	}
	for _, i := range report.Instances {
		if i.Verdict != recover.VerdictIntact || i.PID == 0 || unsettled[i.UUID] != "" {
			continue
		}
		for _, h := range holds {
			if !slices.Contains(h.Owners, i.UUID) || !inService(i, h, proven) {
				continue
			}
			if err := s.pins.Release(ctx, i.UUID, h.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// inService is true when the instance runs on the proven copy of a pinned inode. That
// it is intact says nothing about the pin: somebody may have started it on older files.
func inService(i recover.Instance, h keeper.Hold, proven runs.Published) bool {
	meta, err := pin.MetaOf(h)
	pinned, ok := recover.ParseKey(h.Key)
	if err != nil || !ok || i.Writes(pinned) {
		return false
	}
	for _, f := range i.Files {
		if f.Path != meta.Path {
			continue
		}
		p, ok := proven.Copy(f.Path, pinned)
		// Proven is of the inode that is held now: an earlier one of that path is another file.
		return f.Proven && f.Identity().Is(pinned, true) || ok && p.Identity().Is(f.Identity(), len(f.Holders) > 0)
	}
	return false
}
