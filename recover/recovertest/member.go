package recovertest

import (
	"context"

	"github.com/os-rescue/os-rescue/recover"
)

// member is a FakeCloud as a user without the role admin sees it.
type member struct {
	c       *FakeCloud
	project string
}

var _ recover.Cloud = (*member)(nil)

// asMember returns the same cloud for a member of a project, by the default policies: of
// instances it may lock, reboot and pause its own, and read no more than their actions.
func (c *FakeCloud) asMember(project string) recover.Cloud { return &member{c, project} }

// of runs do for an instance of the member's project.
func (m *member) of(ctx context.Context, method, uuid string, do func(*FakeServer) error) error {
	m.c.Mu.Lock()
	s := m.c.Instances[uuid]
	m.c.Mu.Unlock()
	if s == nil || s.ProjectID != m.project {
		return m.forbidden(ctx) // another project's looks as one that is not there
	}
	return m.c.act(ctx, method, uuid, do)
}

func (m *member) forbidden(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return recover.ErrForbidden
}

func (m *member) Project(ctx context.Context, nameOrID, _ string) (string, error) {
	if nameOrID != m.project {
		return "", m.forbidden(ctx)
	}
	return m.project, ctx.Err()
}

func (m *member) OwnProject() string { return m.project }

func (m *member) KeepsReasons() bool { return m.c.KeepsReasons() }

func (m *member) Servers(ctx context.Context, _ recover.ServerFilter) ([]recover.Server, error) {
	return nil, m.forbidden(ctx)
}

func (m *member) Server(ctx context.Context, _ string) (recover.Server, error) {
	return recover.Server{}, m.forbidden(ctx) // its host is hidden
}

func (m *member) Deleted(ctx context.Context, _ string) (bool, error) { return false, m.forbidden(ctx) }

func (m *member) ComputeService(ctx context.Context, _ string) (recover.ComputeService, error) {
	return recover.ComputeService{}, m.forbidden(ctx)
}

// Lock does nothing to an instance that is locked (nova/compute/api.py, lock).
func (m *member) Lock(ctx context.Context, uuid, reason string) error {
	return m.of(ctx, "Lock", uuid, func(s *FakeServer) error {
		if !s.Locked {
			s.Locked, s.LockedReason, s.ownersLock = true, reason, true
		}
		return nil
	})
}

func (m *member) Unlock(ctx context.Context, uuid string) error {
	return m.of(ctx, "Unlock", uuid, func(s *FakeServer) error {
		if s.Locked && !s.ownersLock {
			return recover.ErrForbidden
		}
		s.Locked, s.LockedReason = false, ""
		return nil
	})
}

func (m *member) HardReboot(ctx context.Context, uuid string) error {
	if err := m.unlocked(ctx, "HardReboot", uuid); err != nil {
		return err
	}
	return m.c.HardReboot(ctx, uuid)
}

func (m *member) Pause(ctx context.Context, uuid string) error {
	if err := m.unlocked(ctx, "Pause", uuid); err != nil {
		return err
	}
	return m.c.Pause(ctx, uuid)
}

// unlocked is ErrTaskUnderWay, Nova's 409, of an instance that is locked.
func (m *member) unlocked(ctx context.Context, method, uuid string) error {
	return m.of(ctx, method, uuid, func(s *FakeServer) error {
		if s.Locked {
			return recover.ErrTaskUnderWay
		}
		return nil
	})
}

func (m *member) LastReboot(ctx context.Context, uuid string) (id string, err error) {
	err = m.of(ctx, "LastReboot", uuid, func(s *FakeServer) error { id = s.Last; return nil })
	return id, err
}
