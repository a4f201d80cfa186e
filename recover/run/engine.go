package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/plan"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/scan"
	"github.com/os-rescue/os-rescue/recover/selection"
	"github.com/os-rescue/os-rescue/recover/statedir"
	"github.com/os-rescue/os-rescue/recover/treelock"
)

// Engine rescues instances on one compute node. Its fields are set once, before
// its first use; its methods are safe for concurrent use, but only one run at a
// time is let through of a state directory, and of an instances directory on a host.
type Engine struct {
	Settings   recover.Settings   // of this host
	Hypervisor recover.Hypervisor // this host's
	Progress   recover.Progress   // never nil; recover.NoProgress{} shows nothing
	// SignIn connects to Nova, for the first thing of a run that needs it. Its
	// errors are Cloud's. nil where only offline runs are made.
	SignIn func(ctx context.Context) (recover.Cloud, error)
	// Failpoint, if not nil, is called at every journal point with its name:
	// "copy.begin", "copy.done", and with "keeper.ended" when another keeper is needed. With
	// it the tests crash a run at each one.
	Failpoint func(point string)
	// PollInterval is how soon Nova is asked again how a reboot is; 0 is 300 ms.
	PollInterval time.Duration

	scanning sync.Once // makes scans, which remember a guard that does not answer, and what was compared
	scans    *scan.Scanner
}

// Prepare gets a run ready: it takes the locks of runs, scans, has the keeper hold
// every lost file of the selected instances, and plans. Nothing else is changed,
// and no guest is touched. Abandon undoes it; Execute carries it out; Close must
// follow in any case.
//
// Errors of package recover: ErrBusy (another run is under way), ErrUsage,
// ErrNothingSelected, ErrUnusable (state directory, owners, keeper; with ErrNoSpace if the
// state directory has no room for the journal, and what was pinned stays so), ErrUnavailable
// (hypervisor), and unless the run is offline those of Cloud: ErrCredentials,
// ErrForbidden, ErrCloudUnavailable (what was pinned by then stays so), ErrNoProject,
// ErrAmbiguous.
func (e *Engine) Prepare(ctx context.Context, command recover.Command, o recover.Options) (*Session, error) {
	if err := o.Selection.Validate(); err != nil {
		return nil, err
	}
	s := newSession(e)
	if err := s.prepare(ctx, command, o); err != nil {
		if (errors.Is(err, recover.ErrCloudUnavailable) || errors.Is(err, recover.ErrNoSpace)) && s.pins != nil {
			s.pins.Leave() // held on while somebody thinks about going on without Nova, or makes room
		}
		return nil, errors.Join(err, s.Abandon(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// PrepareResume gets an interrupted run ready to be finished. run is its name, or a
// beginning that no other has. The journal says what the run did, the keeper has what
// it pinned, and what is there now is looked at afresh. With offline, Nova is not asked
// even if the run began with it: domains are started through the hypervisor, and locks
// stay for a later resume.
//
// Errors: those of Prepare, and ErrNoRun when there is no such run or it is finished.
func (e *Engine) PrepareResume(ctx context.Context, run string, offline bool) (*Session, error) {
	s := newSession(e)
	if err := s.prepareResume(ctx, run, offline); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// PrepareAbandon gets a run ready to be ended by hand, as it is: one that resume can't
// finish, or that nobody wants to be finished; of a finished one, what it still holds and
// has staged is let go. With offline, its locks in Nova stay. Nothing is changed yet.
//
// Errors: ErrNoRun, ErrBusy, ErrUnusable.
func (e *Engine) PrepareAbandon(ctx context.Context, run string, offline bool) (*Abandonment, error) {
	a := &Abandonment{s: newSession(e)}
	if err := a.prepare(ctx, run, offline); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// DryRun returns the plan that Prepare would make, and touches nothing at all. Its
// errors are Prepare's without ErrBusy.
func (e *Engine) DryRun(ctx context.Context, command recover.Command, o recover.Options) (recover.Plan, error) {
	if err := o.Selection.Validate(); err != nil {
		return recover.Plan{}, err
	}
	c := selection.New(e.Settings, e.scannerOf(command, o).Thorough(), command, o)
	if err := c.Scan(ctx); err != nil {
		return recover.Plan{}, err
	}
	cloud, err := e.signIn(ctx, command, o)
	if err != nil {
		return recover.Plan{}, err
	}
	if err := c.Choose(ctx, cloud); err != nil {
		return recover.Plan{}, err
	}
	plan, err := e.makePlan(ctx, cloud, command, o, c.Selected, false)
	if need := journalRoom(plan); err == nil && freeAt(e.Settings.StateDir) < need {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("the run would be refused: its journal needs %s in the state directory (%s), "+
			"and there is less: free some there, or set state_dir to another one", humanize.IBytes(uint64(need)), e.Settings.StateDir))
	}
	return plan, err
}

// Undo leaves the guests that a killed run was at work on as they were found: a suspended
// guest goes on, and then mirrors and copies are removed. A guest stays on the disks that it
// was moved onto already. One whose destroy had begun is left to resume: libvirt may be about
// to carry it out, and what the guest wrote until then would be in no proven copy. lock and tree
// are the killed run's own locks, still held; Undo lets them go. The run stays unfinished, and
// resume does the rest.
//
// Errors: those of PrepareResume without ErrBusy, and what could not be undone.
func (e *Engine) Undo(ctx context.Context, run string, lock *os.File, tree []*os.File) error {
	s := newSession(e)
	s.lock, s.tree = lock, treelock.Adopt(tree)
	defer s.Close()
	info := statedir.LockInfo{Run: run, Command: statedir.CommandUndo, PID: os.Getpid(), Since: s.started}
	if err := errors.Join(statedir.WriteLock(lock, info), s.tree.SetHolder(e.Settings, info)); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the locks still name the run that was killed") // they are held all the same
	}
	records, err := s.openJournal(run, nil)
	if err != nil {
		return err
	}
	var planned bool
	if s.plan, planned, err = journal.PlanOf(records); err != nil || !planned {
		return err
	}
	if err := s.takeUp(ctx, run, s.plan.Command, records); err != nil {
		return err
	}
	var errs error
	half := s.halfDone()
	undo := func(i *instance, do func(context.Context) error) bool {
		err := do(ctx)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", i.t.Plan.Domain, err))
		}
		return err == nil
	}
	var going []*instance // the copies of a guest that could not be put back are still of what it has
	for _, i := range half {
		if undo(i, i.undoKilledGuest) {
			going = append(going, i)
		}
	}
	for _, i := range going {
		undo(i, i.undoKilledCopies)
	}
	for _, i := range half {
		i.close()
	}
	return errors.Join(errs, s.dirs.Clean())
}

// novaInterval is how soon Nova is asked again how a reboot is.
func (e *Engine) novaInterval() time.Duration {
	return cmp.Or(e.PollInterval, 300*time.Millisecond)
}

func (e *Engine) scanner() *scan.Scanner {
	e.scanning.Do(func() { e.scans = scan.New(e.Settings, e.Hypervisor, pin.Lister(e.Settings.StateDir, nil)) })
	return e.scans
}

// scannerOf is the scanner with which a command looks from its plan to its end: what one look
// finds in order, the next must not call a conflict. Who may replace files looks into those that
// were put back and written since.
func (e *Engine) scannerOf(command recover.Command, o recover.Options) *scan.Scanner {
	s := e.scanner()
	if command == recover.CommandReboot { // it pins nothing: there is no hurry
		s = s.Thorough()
	}
	if o.ReplaceExisting {
		s = s.Doubting()
	}
	return s
}

func (e *Engine) runs() runs.Runs { return runs.Of(e.Settings.StateDir) }

// makePlan plans the selected instances; resuming is true when a resume makes the plan
// anew.
func (e *Engine) makePlan(
	ctx context.Context,
	cloud recover.Cloud,
	command recover.Command,
	o recover.Options,
	selected selection.Selected,
	resuming bool,
) (recover.Plan, error) {
	unsettled, err := e.runs().Unsettled(ctx)
	if err != nil {
		return recover.Plan{}, err
	}
	root, err := beneath.OpenRoot(e.Settings.Root)
	if err != nil {
		return recover.Plan{}, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer root.Close()
	return plan.Make(ctx, plan.Request{
		ComputeID:  inventory.In(e.Settings.StateDir).ComputeIDFault(root, e.Settings.ComputeIDPaths),
		Settings:   e.Settings,
		Hypervisor: e.Hypervisor,
		Cloud:      cloud,
		Command:    command,
		Options:    o,
		Chosen:     selected,
		Unsettled:  unsettled,
		Resuming:   resuming,
	})
}

// signIn connects to Nova for a run that asks it; nil for all others.
func (e *Engine) signIn(ctx context.Context, command recover.Command, o recover.Options) (recover.Cloud, error) {
	if command == recover.CommandBackup || o.Offline || e.SignIn == nil {
		if command == recover.CommandReboot {
			return nil, fmt.Errorf("%w: a hard reboot is made by Nova: it can't be done offline", recover.ErrUsage)
		}
		return nil, nil
	}
	return e.SignIn(ctx)
}
