package recovertest

import (
	"context"
	"errors"
	"sync"

	"github.com/os-rescue/os-rescue/recover"
)

// FakeHypervisor knows domains whose QEMUs are shells that hold their files. It
// passes TestHypervisor. Host.HV is one.
type FakeHypervisor struct {
	// mu guards the other fields. To change a domain of a hypervisor in use, call Change,
	// which takes it.
	mu      sync.Mutex
	ByUUID  map[string]*FakeDomain // the domains that it knows
	gone    map[string]*FakeDomain // what it has forgotten, for Define
	Errs    map[string]error       // by method: what it returns instead of doing anything
	calls   []string               // "method uuid", of every call about a domain
	Support recover.MirrorSupport  // what MirrorSupport returns
	// Before is called without the lock, before a method about a domain does its work.
	Before func(method, uuid string)

	away      bool
	within    map[string]func() // by method: called in its next call, once
	listeners map[*changes]bool
}

var _ recover.Hypervisor = (*FakeHypervisor)(nil)

// newHypervisor returns a hypervisor without a domain that can do all that mode live
// needs. EndAll ends what it starts.
func newHypervisor() *FakeHypervisor {
	return &FakeHypervisor{
		ByUUID: map[string]*FakeDomain{}, gone: map[string]*FakeDomain{}, Errs: map[string]error{},
		within: map[string]func(){}, listeners: map[*changes]bool{},
		Support: recover.MirrorSupport{Synchronous: true, Export: true},
	}
}

// Add makes a domain known, with or without a guest agent. It starts nothing.
func (v *FakeHypervisor) Add(d recover.Domain, agent bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ByUUID[d.UUID] = &FakeDomain{Domain: d, agent: agent, Counters: map[string]recover.BlockCounters{}}
	v.tell(d.UUID)
}

// Get returns a look at a domain, which it knows.
func (v *FakeHypervisor) Get(uuid string) FakeDomain {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *v.ByUUID[uuid]
}

// Change changes a domain, which it knows.
func (v *FakeHypervisor) Change(uuid string, do func(*FakeDomain)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.ByUUID[uuid]
	state := d.State
	do(d)
	if d.State != state {
		v.tell(uuid)
	}
}

// knows is true when it knows a domain of that UUID.
func (v *FakeHypervisor) knows(uuid string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ByUUID[uuid] != nil
}

// recall is a hypervisor that gets to know again what it has forgotten, which it returns.
func (v *FakeHypervisor) recall(uuid string) recover.Domain {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.remember(uuid)
	return v.ByUUID[uuid].look()
}

func (v *FakeHypervisor) remember(uuid string) bool {
	d := v.gone[uuid]
	if d == nil {
		return false
	}
	d.Persistent = true
	v.ByUUID[uuid] = d
	delete(v.gone, uuid)
	v.tell(uuid)
	return true
}

// Forget is a hypervisor that knows a domain no more. Its QEMU ends.
func (v *FakeHypervisor) Forget(uuid string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.ByUUID[uuid]
	d.Off()
	v.forget(d)
}

func (v *FakeHypervisor) forget(d *FakeDomain) {
	delete(v.ByUUID, d.UUID)
	v.gone[d.UUID] = d
	v.tell(d.UUID)
}

// EndAll ends every QEMU.
func (v *FakeHypervisor) EndAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, d := range v.ByUUID {
		d.Off()
	}
}

// Called counts the calls of a method about a domain.
func (v *FakeHypervisor) Called(method, uuid string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, c := range v.calls {
		if c == method+" "+uuid {
			n++
		}
	}
	return n
}

// ask has the guest write a block of a new content to each of its disks: now if it
// runs, else when it runs next.
func (v *FakeHypervisor) ask(uuid string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.ByUUID[uuid]
	d.asked++
	if d.State == recover.StateRunning {
		return d.run()
	}
	return nil
}

// goAway is a hypervisor that can't be reached, until comeBack.
func (v *FakeHypervisor) goAway() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = true
}

// comeBack is a hypervisor that can be reached again. Who listens for events is told that
// anything may have happened.
func (v *FakeHypervisor) comeBack() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = false
	v.tell("")
}

// tell is called with the lock held.
func (v *FakeHypervisor) tell(uuid string) {
	for l := range v.listeners {
		l.add(uuid)
	}
}

// enter is what every method begins with.
func (v *FakeHypervisor) enter(ctx context.Context, method, uuid string) error {
	if v.Before != nil && uuid != "" {
		v.Before(method, uuid)
	}
	v.mu.Lock()
	now := v.within[method]
	delete(v.within, method)
	v.mu.Unlock()
	if now != nil {
		now()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if uuid != "" {
		v.calls = append(v.calls, method+" "+uuid)
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
	v.mu.Lock()
	defer v.mu.Unlock()
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

// errJob is a job where none may be.
var errJob = errors.New("the domain has a job already")
