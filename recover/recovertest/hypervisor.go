package recovertest

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// FakeHypervisor knows domains whose QEMUs are shells that hold their files. It
// passes TestHypervisor. NewHypervisor makes one.
type FakeHypervisor struct {
	// Mu guards the other fields. What changes a domain of a hypervisor in use takes
	// it: Change does.
	Mu      sync.Mutex
	ByUUID  map[string]*FakeDomain // the domains that it knows
	Gone    map[string]*FakeDomain // what it has forgotten, for Define
	Errs    map[string]error       // by method: what it returns instead of doing anything
	Calls   []string               // "method uuid", of every call about a domain
	Support recover.MirrorSupport
	// Before is called without the lock, before a method about a domain does its work.
	Before func(method, uuid string)
	Sent   chan string // what Events tells besides what happens
	Quiet  bool        // Events tells nothing of what happens

	away      bool
	within    map[string]func() // by method: called in its next call, once
	listeners map[*changes]bool
}

var _ recover.Hypervisor = (*FakeHypervisor)(nil)

// NewHypervisor returns a hypervisor without a domain that can do all that mode live
// needs. EndAll ends what it starts.
func NewHypervisor() *FakeHypervisor {
	return &FakeHypervisor{
		ByUUID: map[string]*FakeDomain{}, Gone: map[string]*FakeDomain{}, Errs: map[string]error{},
		within: map[string]func(){}, listeners: map[*changes]bool{},
		Support: recover.MirrorSupport{Synchronous: true, Export: true},
	}
}

// Add makes a domain known, with or without a guest agent. It starts nothing.
func (v *FakeHypervisor) Add(d recover.Domain, agent bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.ByUUID[d.UUID] = &FakeDomain{Domain: d, Agent: agent, Counters: map[string]recover.BlockCounters{}}
	v.tell(d.UUID)
}

// Get returns a look at a domain, which it knows.
func (v *FakeHypervisor) Get(uuid string) FakeDomain {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	return *v.ByUUID[uuid]
}

// Change changes a domain, which it knows.
func (v *FakeHypervisor) Change(uuid string, do func(*FakeDomain)) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	d := v.ByUUID[uuid]
	state := d.State
	do(d)
	if d.State != state {
		v.tell(uuid)
	}
}

// Lookup returns a look at a domain, if it knows it.
func (v *FakeHypervisor) Lookup(uuid string) (recover.Domain, bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	d := v.ByUUID[uuid]
	if d == nil {
		return recover.Domain{}, false
	}
	return d.look(), true
}

// Remember is a hypervisor that gets to know again what it has forgotten.
func (v *FakeHypervisor) Remember(uuid string) recover.Domain {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.remember(uuid)
	return v.ByUUID[uuid].look()
}

func (v *FakeHypervisor) remember(uuid string) bool {
	d := v.Gone[uuid]
	if d == nil {
		return false
	}
	d.Persistent = true
	v.ByUUID[uuid] = d
	delete(v.Gone, uuid)
	v.tell(uuid)
	return true
}

// Forget is a hypervisor that knows a domain no more. Its QEMU ends.
func (v *FakeHypervisor) Forget(uuid string) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	d := v.ByUUID[uuid]
	d.Off()
	v.forget(d)
}

func (v *FakeHypervisor) forget(d *FakeDomain) {
	delete(v.ByUUID, d.UUID)
	v.Gone[d.UUID] = d
	v.tell(d.UUID)
}

// EndAll ends every QEMU.
func (v *FakeHypervisor) EndAll() {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	for _, d := range v.ByUUID {
		d.Off()
	}
}

// Called counts the calls of a method about a domain.
func (v *FakeHypervisor) Called(method, uuid string) int {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	n := 0
	for _, c := range v.Calls {
		if c == method+" "+uuid {
			n++
		}
	}
	return n
}

// Ask has the guest write a block of a new content to each of its disks: now if it
// runs, else when it runs next.
func (v *FakeHypervisor) Ask(uuid string) error {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	d := v.ByUUID[uuid]
	d.asked++
	if d.State == recover.StateRunning {
		return d.run()
	}
	return nil
}

// Away is a hypervisor that can't be reached, until Back.
func (v *FakeHypervisor) Away() {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.away = true
}

// Back is a hypervisor that can be reached again. Who listens for events is told that
// anything may have happened.
func (v *FakeHypervisor) Back() {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.away = false
	v.tell("")
}

// enter is what every method begins with.
func (v *FakeHypervisor) enter(ctx context.Context, method, uuid string) error {
	if v.Before != nil && uuid != "" {
		v.Before(method, uuid)
	}
	v.Mu.Lock()
	now := v.within[method]
	delete(v.within, method)
	v.Mu.Unlock()
	if now != nil {
		now()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v.Mu.Lock()
	defer v.Mu.Unlock()
	if uuid != "" {
		v.Calls = append(v.Calls, method+" "+uuid)
	}
	if v.away {
		return recover.ErrUnavailable
	}
	return v.Errs[method]
}

// act runs a method about one domain under the lock.
func (v *FakeHypervisor) act(ctx context.Context, method, uuid string, do func(*FakeDomain) error) error {
	if err := v.enter(ctx, method, uuid); err != nil {
		return err
	}
	v.Mu.Lock()
	defer v.Mu.Unlock()
	d := v.ByUUID[uuid]
	if d == nil {
		return recover.ErrNoDomain
	}
	state := d.State
	err := do(d)
	if d.State != state {
		v.tell(uuid)
	}
	if d.State == recover.StateShutOff && state != d.State && !d.Persistent {
		v.forget(d)
	}
	return err
}

// Version says that it is a fake.
func (v *FakeHypervisor) Version(ctx context.Context) (string, error) {
	return "a fake", v.enter(ctx, "version", "")
}

// Domains returns every domain.
func (v *FakeHypervisor) Domains(ctx context.Context) ([]recover.Domain, error) {
	if err := v.enter(ctx, "domains", ""); err != nil {
		return nil, err
	}
	v.Mu.Lock()
	defer v.Mu.Unlock()
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
// that is off. An active domain stays as it is, and is persistent from now on.
func (v *FakeHypervisor) Define(ctx context.Context, text string) error {
	defined, err := parseDefinition(text)
	if err != nil {
		return err
	}
	if err := v.enter(ctx, "define", defined.UUID); err != nil {
		return err
	}
	v.Mu.Lock()
	defer v.Mu.Unlock()
	if v.remember(defined.UUID) {
		return nil
	}
	if d := v.ByUUID[defined.UUID]; d != nil && d.QEMU != nil {
		d.Persistent = true
	} else {
		v.ByUUID[defined.UUID] = defined
	}
	v.tell(defined.UUID)
	return nil
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
		if !d.Agent || d.State != recover.StateRunning {
			return recover.ErrNoAgent
		}
		d.Frozen = true
		return nil
	})
}

// Thaw thaws the file systems of a running guest that has an agent.
func (v *FakeHypervisor) Thaw(ctx context.Context, uuid string, _ time.Duration) error {
	return v.act(ctx, "thaw", uuid, func(d *FakeDomain) error {
		if !d.Agent || d.State != recover.StateRunning {
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

// errJob is a job where none may be.
var errJob = errors.New("the domain has a job already")
