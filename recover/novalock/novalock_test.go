package novalock_test

import (
	"context"
	"errors"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/novalock"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// lockable is a Nova with one instance.
func lockable(t *testing.T) (*recovertest.FakeCloud, string) {
	t.Helper()
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	return h.Online(), v.UUID
}

func lockIt(ctx context.Context, t *testing.T, c *recovertest.FakeCloud, uuid string, note func(bool) error) (bool, error) {
	t.Helper()
	server, err := novalock.Read(ctx, c, uuid)
	recovertest.Must(t, err)
	return novalock.Lock(ctx, c, server, "ours", note)
}

func TestALockIsNotedBeforeItIsMade(t *testing.T) {
	c, uuid := lockable(t)
	found, err := lockIt(t.Context(), t, c, uuid, func(found bool) error {
		if found || c.Get(uuid).Locked {
			t.Error("it is locked already")
		}
		return nil
	})
	recovertest.Must(t, err)
	if s := c.Get(uuid); found || !s.Locked || s.LockedReason != "ours" {
		t.Errorf("found %t, Nova has %+v", found, s.Server)
	}
	recovertest.Must(t, c.Unlock(t.Context(), uuid))
	full := errors.New("the disk is full")
	if _, err := lockIt(t.Context(), t, c, uuid, func(bool) error { return full }); !errors.Is(err, full) || c.Get(uuid).Locked {
		t.Errorf("without a note: %v, locked %t", err, c.Get(uuid).Locked)
	}
}

func TestSomebodyElsesLockIsFoundAndStays(t *testing.T) {
	c, uuid := lockable(t)
	c.Change(uuid, func(s *recovertest.FakeServer) { s.Locked, s.LockedReason = true, "theirs" })
	noted := false
	found, err := lockIt(t.Context(), t, c, uuid, func(found bool) error { noted = found; return nil })
	recovertest.Must(t, err)
	if !found || !noted || c.Called("Lock", "") != 0 {
		t.Errorf("found %t, noted %t, %d locks", found, noted, c.Called("Lock", ""))
	}
	got, err := novalock.Unlock(t.Context(), c, uuid, "ours")
	recovertest.Must(t, err)
	if !got.Theirs || got.Reason != "theirs" || !c.Get(uuid).Locked {
		t.Errorf("unlocking: %+v, locked %t", got, c.Get(uuid).Locked)
	}
	c.NoReasons = true // then the note alone says that it is ours
	got, err = novalock.Unlock(t.Context(), c, uuid, "ours")
	recovertest.Must(t, err)
	if got.Theirs || c.Get(uuid).Locked {
		t.Errorf("without reasons: %+v, locked %t", got, c.Get(uuid).Locked)
	}
}

func TestWhatNeedsNoUnlockingIsUnlocked(t *testing.T) {
	c, uuid := lockable(t)
	got, err := novalock.Unlock(t.Context(), c, uuid, "ours") // nobody has locked it
	if err != nil || got.Theirs || c.Called("Unlock", "") != 0 {
		t.Errorf("not locked: %+v, %v", got, err)
	}
	if _, err := novalock.Unlock(t.Context(), c, recovertest.UUID(9), "ours"); err != nil {
		t.Errorf("no such instance: %v", err)
	}
	c.Change(uuid, func(s *recovertest.FakeServer) { s.Locked, s.LockedReason = true, "ours" })
	c.Fail("Unlock", recover.ErrNoInstance)
	if _, err := novalock.Unlock(t.Context(), c, uuid, "ours"); err != nil {
		t.Errorf("gone meanwhile: %v", err)
	}
}

func TestOfALockThatMayHaveBeenMadeTheNoteStays(t *testing.T) {
	c, uuid := lockable(t)
	for cause, may := range map[error]bool{recover.ErrCloudUnavailable: true, recover.ErrForbidden: false, recover.ErrNoInstance: false} {
		c.Fail("Lock", cause)
		_, err := lockIt(t.Context(), t, c, uuid, func(bool) error { return nil })
		if !errors.Is(err, cause) || novalock.MayBeLocked(err) != may {
			t.Errorf("%v: may be locked %t", err, novalock.MayBeLocked(err))
		}
	}
}

func TestACellThatIsDownIsNoAnswer(t *testing.T) {
	c, uuid := lockable(t)
	c.Mu.Lock()
	c.Down = true
	c.Mu.Unlock()
	if _, err := novalock.Read(t.Context(), c, uuid); !errors.Is(err, novalock.ErrCellDown) || !errors.Is(err, recover.ErrCloudUnavailable) {
		t.Errorf("read: %v", err)
	}
	if _, err := novalock.Unlock(t.Context(), c, uuid, "ours"); !errors.Is(err, novalock.ErrCellDown) {
		t.Errorf("unlock: %v", err)
	}
}

func TestALockByTheInstancesOwnProjectIsItsOwners(t *testing.T) {
	c, uuid := lockable(t)
	server, err := novalock.Read(t.Context(), c, uuid)
	recovertest.Must(t, err)
	for own, is := range map[string]bool{"p1": true, "admin": false, "": false} {
		c.Own = own
		if novalock.IsOwnProject(c, server) != is {
			t.Errorf("credentials of project %q", own)
		}
	}
	if c.Own = ""; novalock.IsOwnProject(c, recover.Server{}) {
		t.Error("credentials of no project, and an instance of which it is not known")
	}
}
