package recover

import (
	"context"
	"errors"
	"testing"
)

// lockable is a Nova with one instance.
func lockable(t *testing.T) (*fakeCloud, string) {
	t.Helper()
	h := newHost(t)
	v := h.add(1, guestOptions{state: StateShutOff})
	return h.online(), v.uuid
}

func lockIt(ctx context.Context, t *testing.T, c *fakeCloud, uuid string, note func(bool) error) (bool, error) {
	t.Helper()
	server, err := readServer(ctx, c, uuid)
	must(t, err)
	return lockServer(ctx, c, server, "ours", note)
}

func TestALockIsNotedBeforeItIsMade(t *testing.T) {
	c, uuid := lockable(t)
	found, err := lockIt(t.Context(), t, c, uuid, func(found bool) error {
		if found || c.get(uuid).Locked {
			t.Error("it is locked already")
		}
		return nil
	})
	must(t, err)
	if s := c.get(uuid); found || !s.Locked || s.LockedReason != "ours" {
		t.Errorf("found %t, Nova has %+v", found, s.Server)
	}
	must(t, c.Unlock(t.Context(), uuid))
	full := errors.New("the disk is full")
	if _, err := lockIt(t.Context(), t, c, uuid, func(bool) error { return full }); !errors.Is(err, full) || c.get(uuid).Locked {
		t.Errorf("without a note: %v, locked %t", err, c.get(uuid).Locked)
	}
}

func TestSomebodyElsesLockIsFoundAndStays(t *testing.T) {
	c, uuid := lockable(t)
	c.change(uuid, func(s *fakeServer) { s.Locked, s.LockedReason = true, "theirs" })
	noted := false
	found, err := lockIt(t.Context(), t, c, uuid, func(found bool) error { noted = found; return nil })
	must(t, err)
	if !found || !noted || c.called("Lock", "") != 0 {
		t.Errorf("found %t, noted %t, %d locks", found, noted, c.called("Lock", ""))
	}
	got, err := unlockServer(t.Context(), c, uuid, "ours")
	must(t, err)
	if !got.Theirs || got.Reason != "theirs" || !c.get(uuid).Locked {
		t.Errorf("unlocking: %+v, locked %t", got, c.get(uuid).Locked)
	}
	c.noReasons = true // then the note alone says that it is ours
	got, err = unlockServer(t.Context(), c, uuid, "ours")
	must(t, err)
	if got.Theirs || c.get(uuid).Locked {
		t.Errorf("without reasons: %+v, locked %t", got, c.get(uuid).Locked)
	}
}

func TestWhatNeedsNoUnlockingIsUnlocked(t *testing.T) {
	c, uuid := lockable(t)
	got, err := unlockServer(t.Context(), c, uuid, "ours") // nobody has locked it
	if err != nil || got.Theirs || c.called("Unlock", "") != 0 {
		t.Errorf("not locked: %+v, %v", got, err)
	}
	if _, err := unlockServer(t.Context(), c, testUUID(9), "ours"); err != nil {
		t.Errorf("no such instance: %v", err)
	}
	c.change(uuid, func(s *fakeServer) { s.Locked, s.LockedReason = true, "ours" })
	c.fail("Unlock", ErrNoInstance)
	if _, err := unlockServer(t.Context(), c, uuid, "ours"); err != nil {
		t.Errorf("gone meanwhile: %v", err)
	}
}

func TestOfALockThatMayHaveBeenMadeTheNoteStays(t *testing.T) {
	c, uuid := lockable(t)
	for cause, may := range map[error]bool{ErrCloudUnavailable: true, ErrForbidden: false, ErrNoInstance: false} {
		c.fail("Lock", cause)
		_, err := lockIt(t.Context(), t, c, uuid, func(bool) error { return nil })
		if !errors.Is(err, cause) || mayBeLocked(err) != may {
			t.Errorf("%v: may be locked %t", err, mayBeLocked(err))
		}
	}
}

func TestACellThatIsDownIsNoAnswer(t *testing.T) {
	c, uuid := lockable(t)
	c.mu.Lock()
	c.down = true
	c.mu.Unlock()
	if _, err := readServer(t.Context(), c, uuid); !errors.Is(err, errCellDown) || !errors.Is(err, ErrCloudUnavailable) {
		t.Errorf("read: %v", err)
	}
	if _, err := unlockServer(t.Context(), c, uuid, "ours"); !errors.Is(err, errCellDown) {
		t.Errorf("unlock: %v", err)
	}
}

func TestALockByTheInstancesOwnProjectIsItsOwners(t *testing.T) {
	c, uuid := lockable(t)
	server, err := readServer(t.Context(), c, uuid)
	must(t, err)
	for own, is := range map[string]bool{"p1": true, "admin": false, "": false} {
		c.own = own
		if isOwnProject(c, server) != is {
			t.Errorf("credentials of project %q", own)
		}
	}
	if c.own = ""; isOwnProject(c, Server{}) {
		t.Error("credentials of no project, and an instance of which it is not known")
	}
}
