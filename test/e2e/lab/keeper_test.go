package e2e

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

// onlyTheKeeperHas lets a killed run's keeper be the last that has a guest's files, and returns its pid.
func onlyTheKeeperHas(t *testing.T, l *lab.Lab, v *victim) (pid int) {
	t.Helper()
	l.DeleteTree(t)
	env := []string{"OS_RESCUE_FAILPOINT=suspend.done=kill"}
	runEnv(t, l, env, 128+9, "--instance", v.Name, "--offline", "--yes")
	v.WaitBeat(t, v.LastBeat()+1)
	v.Destroy(t)
	keeper := holdings(t, l)
	if keeper.PID == 0 || len(keeper.Holds) == 0 {
		t.Fatalf("the keeper holds %s", asJSON(t, keeper))
	}
	return keeper.PID
}

// rescuedFromTheKeeper checks that a run brings the guest's files back.
func rescuedFromTheKeeper(t *testing.T, l *lab.Lab, v *victim, command ...string) {
	t.Helper()
	if got := of(t, rescue(t, l, 0, command...), v); got.Outcome != recover.OutcomeRescued {
		t.Fatalf("the report says %s", asJSON(t, got))
	}
	v.Start(t)
	v.isBack(t, 1)
	v.Verify(t)
	v.intact(t)
}

// Somebody cleans /var/lib up, os-rescue's own state with it, while a keeper has the only copy.
func TestWhatAKeeperHoldsWhoseStateDirectoryWasRemovedIsFoundAndRescued(t *testing.T) {
	l := lab.New(t, withFailpoints)
	dir := filepath.Join(t.TempDir(), "state")
	t.Setenv("OS_RESCUE_STATE_DIR", dir)
	v := boot(t, l, lab.Spec{LogAppend: true, NoAgent: true})
	pid := onlyTheKeeperHas(t, l, v)
	remove(t, dir)

	says(t, run(t, l, 0, "scan").Stdout, "recoverable", fmt.Sprintf("os-rescue %d", pid), "--all --dry-run")
	says(t, run(t, l, 0, "status").Stdout, fmt.Sprint(pid))
	says(t, run(t, l, 2, "check").Stdout, "CRITICAL")
	rescuedFromTheKeeper(t, l, v, "--instance", v.Name)
}

// A keeper that is stopped answers nobody. It still holds, and is named with what to do.
func TestAStoppedKeeperIsNamedAndWhatItHoldsIsNotCalledLost(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, NoAgent: true})
	pid := onlyTheKeeperHas(t, l, v)
	must(t, syscall.Kill(pid, syscall.SIGSTOP))

	for _, command := range []string{"scan", "status"} {
		says(t, run(t, l, 0, command).Stdout, fmt.Sprint(pid), "does not answer")
	}
	says(t, run(t, l, 0, "scan").Stdout, "recoverable")
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	rescuedFromTheKeeper(t, l, v, "resume")
}
