package run

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/treelock"
)

// The descriptors that Settings.UndoCommand is started with.
const (
	UndoRunFD  = 3 // a pipe: a byte when the run ends in order, its end when it was killed
	UndoLockFD = 4 // the lock of the state directory, which outlives the run in it
	UndoTreeFD = 5 // the first of the lock on the instances directory, which does so too
)

// witness is a process that outlives a run that is killed: a suspended guest stays so, and
// libvirt's jobs go on, without whoever began them.
type witness struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// startWitness starts the witness of a run that suspends guests; command is
// Settings.UndoCommand, and lock and tree are the locks that the run holds. It returns nil
// when there is no need of one, or none can be started: the run is as good without,
// until it is killed.
func startWitness(ctx context.Context, command []string, plan recover.Plan, lock *os.File, tree *treelock.Lock) *witness {
	if !slices.ContainsFunc(plan.Work(), suspends) || len(command) == 0 || lock == nil {
		return nil
	}
	theirs, ours, err := os.Pipe()
	if err == nil {
		defer theirs.Close()
		lasting := context.WithoutCancel(ctx) // an interrupted run has things to undo itself
		args := append(slices.Clone(command[1:]), plan.Run, strconv.Itoa(len(tree.Files())))
		w := &witness{cmd: exec.CommandContext(lasting, command[0], args...), pipe: ours}
		w.cmd.ExtraFiles = append([]*os.File{theirs, lock}, tree.Files()...) // UndoRunFD, UndoLockFD, UndoTreeFD
		w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err = w.cmd.Start(); err == nil {
			return w
		}
		ours.Close()
	}
	zerolog.Ctx(ctx).Warn().Err(err).Msg("nobody will undo this run if it is killed: then use resume")
	return nil
}

// suspends is true when the run leaves a guest suspended, or mirrored, while it works on it.
func suspends(plan recover.InstancePlan) bool {
	switch plan.Action {
	case recover.ActionLive, recover.ActionReboot, recover.ActionBackup:
		return true
	default:
		return false
	}
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
