package run

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

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
	"github.com/os-rescue/os-rescue/recover/treelock"
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
	if err := s.takeLocks(head.Run, command); err != nil {
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
	if command.Publishes() { // the others give no file to anybody, and may run where nova is no user
		if s.owners, err = owners.Resolve(s.e.Settings, s.root); err != nil {
			return err
		}
	}
	s.dirs = staging.NewDirectories(s.root, s.e.Settings)
	return nil
}

// takeLocks takes the lock of the state directory, and the one of the instances directory.
func (s *Session) takeLocks(run string, command recover.Command) (err error) {
	info := statedir.LockInfo{Run: run, Command: command, PID: os.Getpid(), Since: s.started}
	if s.lock, err = s.state.Lock(info); err != nil {
		return err
	}
	s.tree, err = treelock.Take(s.e.Settings, info)
	if errors.Is(err, recover.ErrUnusable) { // a /run that is full or can't be written keeps nobody from a rescue
		s.tree = treelock.Adopt(nil)
		s.notes = append(s.notes, fmt.Sprintf("runs with other state directories are not kept away: %v", err))
		return nil
	}
	return err
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
		Failpoint:     s.e.Failpoint,
	})
}

// choosePinPlan fills the session in from a fresh scan. It pins the instances that the
// domains' own metadata selects before it asks Nova, which may take long.
func (s *Session) choosePinPlan(ctx context.Context, id string, head journal.Header) error {
	earlier, err := s.pins.Earlier(ctx) // before the scan: what it finds is where it stays
	if err != nil {
		return err
	}
	c := selection.New(s.e.Settings, s.e.scannerOf(head.Command, head.Options), head.Command, head.Options)
	if err := c.Scan(ctx); err != nil {
		return err
	}
	if err := s.releaseIntact(ctx, c.Report, earlier); err != nil {
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
	if err := s.log.Write(journal.Record{Step: journal.StepPlan, Phase: recover.PhaseDone}, plan); err != nil {
		return err
	}
	return s.reserve()
}

// reserve reserves the room for the journal of all that the plan has yet to do.
func (s *Session) reserve() error {
	todo := s.plan
	todo.Instances = slices.DeleteFunc(slices.Clone(todo.Instances), func(plan recover.InstancePlan) bool {
		_, done := s.settled(plan.UUID)
		return done
	})
	if err := s.log.Reserve(journalRoom(todo)); err != nil {
		return fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	return nil
}

// What a run writes into the state directory after its plan: some 25 records of an instance
// and 6 of each file, most of them of 500 bytes, and the domain's definition, of 5 to 20 KiB,
// which is written before the pause. The room for it is generous.
const (
	roomOfRun      = 64 << 10
	roomOfInstance = 128 << 10
	roomOfFile     = 16 << 10
)

// freeAt returns how many bytes root can still write where a directory is, or would be
// made. What can't be found out is no obstacle.
func freeAt(dir string) int64 {
	for {
		var room unix.Statfs_t
		err := unix.Statfs(dir, &room)
		if errors.Is(err, unix.ENOENT) && dir != "/" {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return math.MaxInt64
		}
		return int64(room.Bfree) * room.Bsize
	}
}

// journalRoom returns how many bytes a plan's run may write into the state directory.
func journalRoom(plan recover.Plan) int64 {
	var n int64
	for _, todo := range plan.Work() {
		n += roomOfInstance + int64(len(todo.Files)+len(todo.Relinks))*roomOfFile
	}
	if n > 0 {
		n += roomOfRun
	}
	return n
}

// signIn connects to Nova, where the run asks it.
func (s *Session) signIn(ctx context.Context, command recover.Command, o recover.Options) (err error) {
	s.cloud, err = s.e.signIn(ctx, command, o)
	return err
}

// releaseIntact releases what an earlier run pinned for instances that have come
// into order since, in whatever way.
func (s *Session) releaseIntact(ctx context.Context, report recover.Report, holds []keeper.Hold) error {
	if len(holds) == 0 {
		return nil
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
			if !slices.Contains(h.Owners, i.UUID) || !inService(i, h, proven, s.root) {
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
// it is intact says nothing about the pin: somebody may have started it on older files, or
// written to the copy of one that no guest writes.
func inService(i recover.Instance, h keeper.Hold, proven runs.Published, root *beneath.Root) bool {
	meta, err := pin.MetaOf(h)
	pinned, ok := recover.ParseKey(h.Key)
	if err != nil || !ok || i.Writes(pinned) {
		return false
	}
	for _, f := range i.Files {
		if f.Path != meta.Path {
			continue
		}
		// Proven is of the inode that is held now: an earlier one of that path is another file.
		if f.Proven && f.Identity().Is(pinned, true) {
			return true
		}
		p, ok := proven.Copy(f.Path, pinned)
		if !ok || !p.Identity().Is(f.Identity(), len(f.Holders) > 0) {
			return false
		}
		at, err := root.Lstat(f.Path)
		return err == nil && at.Inode() == f.Identity() && p.IsUnwritten(at)
	}
	return false
}
