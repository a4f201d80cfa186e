package main

import (
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// newUndo is what a live run starts beside itself, to be there when it is killed.
func newUndo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "undo RUN",
		Short:  "Leave the guests of a live run that was killed as they were found; os-rescue starts it by itself",
		Long:   `The process that watches a live run, and ends its mirrors when it is killed. os-rescue starts it, and it ends by itself.`,
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Whatever ends the run must not end this.
			signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
			// oom_score_adj -1000 is "never" (proc_pid_oom_score_adj(5)).
			_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
			if !recover.Outlived(os.NewFile(recover.UndoRunFD, "run")) {
				return nil
			}
			delete(a.sys.env, "OS_RESCUE_FAILPOINT") // that was the run's
			ctx, e, err := a.open(cmd, true)
			if err != nil {
				return err
			}
			defer e.close()
			return e.Undo(ctx, args[0], os.NewFile(recover.UndoLockFD, "lock"))
		},
	}
}
