package recovertest

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// Version says that it is a fake.
func (v *FakeHypervisor) Version(ctx context.Context) (string, error) {
	return "a fake", v.enter(ctx, "version", "")
}

// Domains returns every domain.
func (v *FakeHypervisor) Domains(ctx context.Context) ([]recover.Domain, error) {
	if err := v.enter(ctx, "domains", ""); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []recover.Domain
	for _, d := range v.ByUUID {
		list = append(list, d.look())
	}
	return list, nil
}

// Domain returns one domain.
func (v *FakeHypervisor) Domain(ctx context.Context, uuid string) (d recover.Domain, err error) {
	err = v.act(ctx, "domain", uuid, func(f *FakeDomain) error { d = f.look(); return nil })
	return d, err
}

// XML returns what Define makes the domain of again.
func (v *FakeHypervisor) XML(ctx context.Context, uuid string) (text string, err error) {
	err = v.act(ctx, "xml", uuid, func(d *FakeDomain) (err error) { text, err = d.text(); return err })
	return text, err
}

// Define makes known what XML gave: what it had forgotten as it was, else a domain
// that is off. An active domain stays as it is, and its next start is of this definition.
func (v *FakeHypervisor) Define(ctx context.Context, text string) error {
	defined, err := parseDefinition(text)
	if err != nil {
		return err
	}
	if err := v.enter(ctx, "define", defined.UUID); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.remember(defined.UUID) {
		return nil
	}
	if d := v.ByUUID[defined.UUID]; d != nil && d.QEMU != nil {
		d.Persistent, d.Defined = true, &recover.Definition{Disks: defined.Disks, NVRAM: defined.NVRAM}
	} else {
		v.ByUUID[defined.UUID] = defined
	}
	v.tell(defined.UUID)
	return nil
}

// StartNeeds returns the shell that is the domain's QEMU, and what a test says.
func (v *FakeHypervisor) StartNeeds(ctx context.Context, uuid string) (n recover.StartNeeds, err error) {
	err = v.act(ctx, "startneeds", uuid, func(d *FakeDomain) error {
		n.Files = append([]recover.NeededFile{{Path: "/bin/sh", What: "its emulator", Executable: true}}, d.Needs...)
		n.Kept = slices.Clone(d.Kept)
		n.Lacking = slices.Clone(d.Lacking)
		return nil
	})
	return n, err
}

// Counters returns what the guest has written.
func (v *FakeHypervisor) Counters(ctx context.Context, uuid string) (c map[string]recover.BlockCounters, err error) {
	err = v.act(ctx, "counters", uuid, func(d *FakeDomain) error {
		if d.QEMU == nil {
			return errOff
		}
		c = maps.Clone(d.Counters)
		return nil
	})
	return c, err
}

// Suspend pauses a domain that runs.
func (v *FakeHypervisor) Suspend(ctx context.Context, uuid string) error {
	return v.act(ctx, "suspend", uuid, func(d *FakeDomain) error {
		if d.QEMU == nil {
			return errOff
		}
		if d.State == recover.StateRunning {
			d.State, d.PauseReason = recover.StatePaused, recover.PauseUser
		}
		return nil
	})
}

// Resume lets a domain run.
func (v *FakeHypervisor) Resume(ctx context.Context, uuid string) error {
	return v.act(ctx, "resume", uuid, func(d *FakeDomain) error {
		if d.QEMU == nil {
			return errOff
		}
		return d.run()
	})
}

// Freeze freezes the file systems of a running guest that has an agent.
func (v *FakeHypervisor) Freeze(ctx context.Context, uuid string, _ time.Duration) error {
	return v.act(ctx, "freeze", uuid, func(d *FakeDomain) error {
		if !d.agent || d.State != recover.StateRunning {
			return recover.ErrNoAgent
		}
		d.Frozen = true
		return nil
	})
}

// Thaw thaws the file systems of a running guest that has an agent.
func (v *FakeHypervisor) Thaw(ctx context.Context, uuid string, _ time.Duration) error {
	return v.act(ctx, "thaw", uuid, func(d *FakeDomain) error {
		if !d.agent || d.State != recover.StateRunning {
			return recover.ErrNoAgent
		}
		d.Frozen = false
		d.Thawed++
		return nil
	})
}

// Destroy ends a domain's QEMU, and forgets it when it has no definition.
func (v *FakeHypervisor) Destroy(ctx context.Context, uuid string) error {
	return v.act(ctx, "destroy", uuid, func(d *FakeDomain) error {
		d.Off()
		return nil
	})
}

// Start starts a domain's QEMU, which fails when one of its files is missing.
func (v *FakeHypervisor) Start(ctx context.Context, uuid string, paused bool) error {
	return v.act(ctx, "start", uuid, func(d *FakeDomain) error {
		if d.QEMU != nil {
			return nil
		}
		return d.start(paused)
	})
}

// Events tells of what happens until ctx ends.
func (v *FakeHypervisor) Events(ctx context.Context) (<-chan string, error) {
	if err := v.enter(ctx, "events", ""); err != nil {
		return nil, err
	}
	l := &changes{more: make(chan struct{}, 1)}
	v.mu.Lock()
	v.listeners[l] = true
	v.mu.Unlock()
	out := make(chan string)
	go func() {
		defer close(out)
		defer func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			delete(v.listeners, l)
		}()
		for {
			uuid, ok := l.take()
			if !ok {
				select {
				case <-ctx.Done():
					return
				case <-l.more:
					continue
				}
			}
			select {
			case <-ctx.Done():
				return
			case out <- uuid:
			}
		}
	}()
	return out, nil
}
