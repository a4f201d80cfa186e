package plan_test

import (
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAGuestWhoseDiskWasOverwrittenIsNotEnded(t *testing.T) {
	for _, command := range []recover.Command{recover.CommandReboot, recover.CommandRescue} {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		h.Online()
		recovertest.Must(t, os.Truncate(g.Disk, 0))
		todo := h.Planned(g, command, recovertest.Options(g))
		if todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, "in place") {
			t.Errorf("%s: %s %q", command, todo.Action, todo.Refusal)
		}
	}
}
