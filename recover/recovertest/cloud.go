package recovertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// FakeCloud is a Nova whose hard reboots do to the fake hypervisor's domains what
// Nova's do to real ones. Nothing in it takes time by itself: a task goes one step
// further each time that its instance is looked at. It passes TestCloud as an
// administrator, and asMember's view of it as a member of a project. NewCloud makes one.
type FakeCloud struct {
	t  testing.TB
	hv *FakeHypervisor

	Mu        sync.Mutex                        // guards the fields below
	NoReasons bool                              // reasons of locks are not kept
	Instances map[string]*FakeServer            // by UUID
	Projects  []FakeProject                     // that Keystone knows
	Services  map[string]recover.ComputeService // by host
	lostHosts map[string]bool                   // hosts of a cell that is down
	removed   map[string]bool                   // what has been deleted, by UUID
	Own       string                            // the project of the token
	Down      bool                              // the cell: everything but UUIDs is unknown
	Offline   bool                              // nothing may be asked
	Errs      map[string]error                  // by method: what it returns instead of doing anything
	Once      map[string][]error                // the same, for the next calls only
	Lost      map[string]error                  // by method: it is done, once, and this is answered
	Calls     []string                          // "Method uuid"
	Point     func(string)                      // called without the lock before and after each method
	Taking    int                               // how many looks a hard reboot takes
	requests  int                               // hard reboots that were accepted
	failing   int                               // so many requests are not answered from now on; negative: none ever is
	attempts  int                               // requests to change an instance, with those that were not answered
}

// FakeProject is a project of Keystone's.
type FakeProject struct {
	ID, Name   string // as Project takes them
	Domain     string // the ID of its Keystone domain
	domainName string
}

// FakeServer is an instance of a FakeCloud.
type FakeServer struct {
	recover.Server
	down    bool              // its cell is down
	Reboots int               // that were accepted
	Looks   int               // until the task under way ends
	Task    func(*FakeServer) // what it does then
	Last    string            // request ID of the last reboot

	ownersLock bool // the lock is one of the owner's project
}

var _ recover.Cloud = (*FakeCloud)(nil)

// NewCloud returns a Nova without instances, a project p1 and a token of another.
func NewCloud(t testing.TB, hv *FakeHypervisor) *FakeCloud {
	return &FakeCloud{
		t: t, hv: hv, Instances: map[string]*FakeServer{}, Errs: map[string]error{}, Once: map[string][]error{},
		Lost: map[string]error{}, removed: map[string]bool{}, lostHosts: map[string]bool{},
		Projects: []FakeProject{{ID: "p1", Name: "project", Domain: "default", domainName: "Default"}}, Own: "admin", Taking: 1,
		Services: map[string]recover.ComputeService{},
	}
}

// addDomain gives Nova an instance on a host that is in the state of that domain.
func (c *FakeCloud) addDomain(d recover.Domain, host string) {
	s := &FakeServer{Server: recover.Server{UUID: d.UUID, Name: "vm", ProjectID: "p1", Host: host, Domain: d.Name}}
	if d.Nova != nil {
		s.Name, s.ProjectID = d.Nova.Name, d.Nova.ProjectID
	}
	switch d.State {
	case recover.StatePaused:
		s.To(recover.VMPaused)
	case recover.StateShutOff:
		s.To(recover.VMStopped)
	default:
		s.To(recover.VMActive)
	}
	c.Instances[d.UUID] = s
}

// The values of power_state (nova/compute/power_state.py).
const powerRunning, powerPaused, powerShutdown = 1, 3, 4

// To is To of the instance.
func (s *FakeServer) To(vmState string) { To(&s.Server, vmState) }

// To is an instance in a state with all that Nova's database then has of it.
func To(s *recover.Server, vmState string) {
	s.VMState = vmState
	switch vmState {
	case recover.VMActive:
		s.Status, s.PowerState = "ACTIVE", powerRunning
	case recover.VMPaused:
		s.Status, s.PowerState = "PAUSED", powerPaused
	case recover.VMStopped:
		s.Status, s.PowerState = "SHUTOFF", powerShutdown
	case recover.VMRescued:
		s.Status = "RESCUE"
	case recover.VMResized:
		s.Status = "VERIFY_RESIZE"
	default:
		s.Status = strings.ToUpper(vmState)
	}
}

// Get returns a look at an instance that counts for nothing.
func (c *FakeCloud) Get(uuid string) FakeServer {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	return *c.Instances[uuid]
}

// Change changes an instance, which it has.
func (c *FakeCloud) Change(uuid string, do func(*FakeServer)) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	do(c.Instances[uuid])
}

// Called counts the calls of a method, of all instances for an empty UUID.
func (c *FakeCloud) Called(method, uuid string) int {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	n := 0
	for _, call := range c.Calls {
		if m, u, _ := strings.Cut(call, " "); m == method && (uuid == "" || u == uuid) {
			n++
		}
	}
	return n
}

// Fail has a method fail from now on, or with nil no longer.
func (c *FakeCloud) Fail(method string, err error) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.Errs[method] = err
}

// Away has methods find no Nova that answers.
func (c *FakeCloud) Away(methods ...string) {
	for _, m := range methods {
		c.Fail(m, fmt.Errorf("%w: 503", recover.ErrCloudUnavailable))
	}
}

// Back is Nova that answers again.
func (c *FakeCloud) Back() {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.Errs, c.Once, c.Lost = map[string]error{}, map[string][]error{}, map[string]error{}
}

// Deletes has Nova have deleted an instance.
func (c *FakeCloud) Deletes(uuid string) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	delete(c.Instances, uuid)
	c.removed[uuid] = true
}

// In checks what Nova has of an instance after a run.
func (c *FakeCloud) In(uuid, vmState string, locked bool, reboots int) error {
	s := c.Get(uuid)
	switch {
	case s.VMState != vmState || s.TaskState != "":
		return fmt.Errorf("in Nova it is %s (task %q, fault %q), not %s", s.VMState, s.TaskState, s.Fault, vmState)
	case s.Locked != locked:
		return fmt.Errorf("locked in Nova: %t (%s)", s.Locked, s.LockedReason)
	case s.Reboots != reboots:
		return fmt.Errorf("rebooted by Nova %d times, not %d", s.Reboots, reboots)
	}
	return nil
}

// ErrAnswer is a request whose answer never came.
var ErrAnswer = errors.Join(recover.ErrCloudUnavailable, errors.New("connection reset by peer"))

// call is what every method is wrapped in.
func (c *FakeCloud) call(ctx context.Context, method, uuid string, do func(*FakeServer) error) error {
	if c.Point != nil {
		c.Point("before " + method)
		defer c.Point("after " + method)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.Calls = append(c.Calls, method+" "+uuid)
	if c.Offline {
		c.t.Errorf("%s was asked of Nova by a run that is offline", method)
	}
	if err := c.send(method); err != nil {
		return err
	}
	if next := c.Once[method]; len(next) > 0 {
		c.Once[method] = next[1:]
		if next[0] != nil {
			return next[0]
		}
	}
	if err := c.Errs[method]; err != nil {
		return err
	}
	s := c.Instances[uuid]
	if uuid != "" && s == nil {
		return recover.ErrNoInstance
	}
	err := do(s)
	if lost := c.Lost[method]; lost != nil && err == nil {
		delete(c.Lost, method)
		return lost
	}
	return err
}

// send is the request of a method, sent again where that does no harm when it is not
// answered.
func (c *FakeCloud) send(method string) error {
	once, action := method == "HardReboot" || method == "Pause", method == "Lock" || method == "Unlock"
	for {
		if once || action {
			c.attempts++
		}
		if c.failing == 0 {
			return nil
		}
		if c.failing < 0 {
			return recover.ErrCloudUnavailable
		}
		c.failing--
		if once {
			return fmt.Errorf("%w: it may be carried out all the same", recover.ErrCloudUnavailable)
		}
	}
}
