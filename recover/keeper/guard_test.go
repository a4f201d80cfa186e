package keeper

import (
	"errors"
	"os"
	"testing"
)

func TestAGuardThatTakesNoMoreClientsRunsUntilItHasEnded(t *testing.T) {
	dir := stateDir(t)
	ask := func() error { return AskGuard(t.Context(), dir, func(*Client) error { return nil }) }
	if err := ask(); !errors.Is(err, ErrNoKeeper) {
		t.Fatalf("none ever ran: %v", err)
	}
	g, err := ListenGuard(dir)
	must(t, err)
	must(t, g.door.shut()) // as while it hands its files over
	if err := ask(); !errors.Is(err, errHungUp) || errors.Is(err, ErrNoKeeper) || GuardPID(t.Context(), dir) != os.Getpid() {
		t.Errorf("while it ends: %v", err)
	}
	must(t, g.Close())
	if err := ask(); !errors.Is(err, ErrNoKeeper) || GuardPID(t.Context(), dir) != 0 {
		t.Errorf("it has ended: %v", err)
	}
}
