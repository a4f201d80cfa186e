package main

import (
	"os"
	"os/signal"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/run"
)

// newUndo is the command that a run starts beside itself. It leaves the guests as they were
// found if the run is killed.
func newUndo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "undo RUN [TREELOCKS]",
		Short:  "Undo a run that was killed; os-rescue starts it by itself",
		Long:   `The process that watches a run, and lets suspended guests go on if it is killed. os-rescue starts it, and it ends by itself.`,
		Hidden: true,
		Args:   cobra.RangeArgs(1, 2), // a run of an earlier release has one lock
		RunE: func(cmd *cobra.Command, args []string) error {
			// A signal that ends the run must not end this process.
			signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
			// oom_score_adj -1000 is "never" (proc_pid_oom_score_adj(5)).
			_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
			if !run.Outlived(os.NewFile(run.UndoRunFD, "run")) {
				return nil
			}
			delete(a.sys.env, "OS_RESCUE_FAILPOINT") // it was meant for the run
			n := 0
			if len(args) > 1 {
				var err error
				if n, err = strconv.Atoi(args[1]); err != nil {
					return err
				}
			}
			lock, tree := heldLocks(n)
			ctx, e, err := a.open(cmd, true)
			if err != nil {
				return err
			}
			defer e.close()
			return e.Undo(ctx, args[0], lock, tree)
		},
	}
}

// heldLocks are the locks of the killed run, of which n are on the instances directory. No child
// of this process may have them: a keeper would keep them for ever.
func heldLocks(n int) (lock *os.File, tree []*os.File) {
	unix.CloseOnExec(run.UndoLockFD)
	for fd := range n {
		unix.CloseOnExec(run.UndoTreeFD + fd)
		tree = append(tree, os.NewFile(uintptr(run.UndoTreeFD+fd), "tree lock"))
	}
	return os.NewFile(run.UndoLockFD, "lock"), tree
}
