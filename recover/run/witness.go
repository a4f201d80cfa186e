package run

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
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

// startWitness starts the witness of a run that works live; command is
// Settings.UndoCommand, and lock the host's lock, which the run holds. It returns nil
// when there is no need of one, or none can be started: the run is as good without,
// until it is killed.
func startWitness(ctx context.Context, command []string, plan recover.Plan, lock *os.File) *witness {
	live := slices.ContainsFunc(plan.Work(), func(i recover.InstancePlan) bool { return i.Action == recover.ActionLive })
	if !live || len(command) == 0 || lock == nil {
		return nil
	}
	theirs, ours, err := os.Pipe()
	if err == nil {
		defer theirs.Close()
		lasting := context.WithoutCancel(ctx) // an interrupted run has things to undo itself
		w := &witness{cmd: exec.CommandContext(lasting, command[0], append(slices.Clone(command[1:]), plan.Run)...), pipe: ours}
		w.cmd.ExtraFiles = []*os.File{theirs, lock} // UndoRunFD, UndoLockFD
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

// Outlived waits for the end of a run, and is true when the run was killed. run is the
// read end of its pipe, the descriptor UndoRunFD.
func Outlived(run *os.File) bool {
	n, _ := run.Read(make([]byte, 1))
	return n == 0
}
