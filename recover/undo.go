package recover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/rs/zerolog"
)

// The descriptors that Settings.UndoCommand is started with.
const (
	UndoRunFD  = 3 // a pipe: a byte when the run ends in order, its end when it was killed
	UndoLockFD = 4 // the host's lock of runs, which outlives the run in it
)

// witness is a process that outlives a live run that is killed: libvirt's jobs go
// on without whoever began them, and a suspended guest stays so.
type witness struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// witness starts one where the run works live. Without one a run is as good, until
// it is killed.
func (s *Session) witness(ctx context.Context) *witness {
	command := s.e.Settings.UndoCommand
	live := slices.ContainsFunc(s.plan.Work(), func(ip InstancePlan) bool { return ip.Action == ActionLive })
	if !live || len(command) == 0 || s.lock == nil {
		return nil
	}
	theirs, ours, err := os.Pipe()
	if err == nil {
		defer theirs.Close()
		lasting := context.WithoutCancel(ctx) // an interrupted run has things to undo itself
		w := &witness{cmd: exec.CommandContext(lasting, command[0], append(slices.Clone(command[1:]), s.plan.Run)...), pipe: ours}
		w.cmd.ExtraFiles = []*os.File{theirs, s.lock} // UndoRunFD, UndoLockFD
		w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err = w.cmd.Start(); err == nil {
			return w
		}
		ours.Close()
	}
	zerolog.Ctx(ctx).Warn().Err(err).Msg("nobody will undo this run if it is killed: then use resume")
	return nil
}

// end sends the witness home.
func (w *witness) end() {
	if w == nil {
		return
	}
	_, _ = w.pipe.Write([]byte{1})
	_ = w.pipe.Close()
	_ = w.cmd.Wait()
}

// Outlived waits for the end of a run, told at the read end of its pipe, and says
// whether it was killed.
func Outlived(run *os.File) bool {
	n, _ := run.Read(make([]byte, 1))
	return n == 0
}

// Undo leaves the guests whose live rescue was killed as they were found, but for
// the disks that they were moved onto already: mirrors are ended, their files
// removed, a suspended guest goes on. lock is the killed run's own, still held,
// and is let go of. The run stays unfinished: resume does the rest. Errors: those
// of PrepareResume but ErrBusy, and what could not be undone.
func (e *Engine) Undo(ctx context.Context, run string, lock *os.File) (err error) {
	s := e.newSession()
	s.lock = lock
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := writeLock(lock, lockInfo{Run: run, Command: commandUndo, PID: os.Getpid(), Since: s.started}); err != nil {
		return err
	}
	var records []Record
	if s.journal, records, err = openJournal(s.state.run(run), nil); err != nil {
		return err
	}
	plan, ok, err := planOf(records)
	if err != nil || !ok {
		return err
	}
	s.plan = plan
	if err := s.takeUp(ctx, plan.Command, records); err != nil {
		return err
	}
	var errs error
	for _, ip := range s.plan.Instances {
		p := s.priors[ip.UUID]
		if p == nil || !p.begun || p.settlement != nil {
			continue
		}
		if p.replanned != nil {
			ip = *p.replanned
		}
		if ip.Action != ActionLive {
			continue
		}
		if err := s.undoKilled(ctx, ip); err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", ip.Domain, err))
		}
	}
	return errors.Join(errs, s.stages.clean())
}

func (s *Session) undoKilled(ctx context.Context, ip InstancePlan) error {
	t := newTask(s, ip)
	if !t.sameProcess() {
		return nil // it has ended: its pins are what counts now
	}
	d, err := s.e.Hypervisor.Domain(ctx, ip.UUID)
	if err != nil {
		return err
	}
	return t.undoPrior(ctx, d)
}
