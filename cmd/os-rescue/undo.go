package main

import (
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/run"
)

// newUndo is the command that a live run starts beside itself. It leaves the guests
// as they were found if the run is killed.
func newUndo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "undo RUN",
		Short:  "Undo a live run that was killed; os-rescue starts it by itself",
		Long:   `The process that watches a live run, and ends its mirrors if the run is killed. os-rescue starts it, and it ends by itself.`,
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// A signal that ends the run must not end this process.
			signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
			// oom_score_adj -1000 is "never" (proc_pid_oom_score_adj(5)).
			_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
			if !run.Outlived(os.NewFile(run.UndoRunFD, "run")) {
				return nil
			}
			delete(a.sys.env, "OS_RESCUE_FAILPOINT") // it was meant for the run
			ctx, e, err := a.open(cmd, true)
			if err != nil {
				return err
			}
			defer e.close()
			return e.Undo(ctx, args[0], os.NewFile(run.UndoLockFD, "lock"))
		},
	}
}
