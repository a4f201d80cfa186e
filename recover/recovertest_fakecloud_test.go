package recover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeCloud is a Nova whose hard reboots do to the fake hypervisor's domains what
// Nova's do to real ones. Nothing in it takes time by itself: a task goes one step
// further each time that its instance is looked at.
type fakeCloud struct {
	noReasons bool
	t         testing.TB
	hv        *fakeHypervisor

	mu       sync.Mutex
	servers  map[string]*fakeServer
	projects []fakeProject
	services map[string]ComputeService
	deleted  map[string]bool    // what has been deleted, by UUID
	own      string             // the project of the token
	down     bool               // the cell: everything but UUIDs is unknown
	offline  bool               // nothing may be asked
	errs     map[string]error   // by method: what it returns instead of doing anything
	once     map[string][]error // the same, for the next calls only
	lost     map[string]error   // by method: it is done, once, and this is answered
	calls    []string
	point    func(string) // called without the lock before and after each method
	taking   int          // how many looks a hard reboot takes
	requests int
}

type fakeProject struct{ id, name, domain string }

type fakeServer struct {
	Server
	reboots int // that were accepted
	looks   int // until the task under way ends
	task    func(*fakeServer)
	last    string // request ID of the last reboot
}

var _ Cloud = (*fakeCloud)(nil)

// online gives the host a Nova that has all its domains.
func (h *host) online() *fakeCloud {
	c := &fakeCloud{t: h.t, hv: h.hv, servers: map[string]*fakeServer{}, errs: map[string]error{}, once: map[string][]error{}, lost: map[string]error{},
		projects: []fakeProject{{"p1", "project", "default"}}, own: "admin", taking: 1,
		services: map[string]ComputeService{h.settings.Host: {Known: true, Up: true}}}
	for _, d := range h.hv.domains {
		s := Server{UUID: d.UUID, Name: "vm", ProjectID: "p1", Host: h.settings.Host, Domain: d.Name}
		if d.Nova != nil {
			s.Name, s.ProjectID = d.Nova.Name, d.Nova.ProjectID
		}
		switch d.State {
		case StatePaused:
			s.to(VMPaused)
		case StateShutOff:
			s.to(VMStopped)
		default:
			s.to(VMActive)
		}
		c.servers[d.UUID] = &fakeServer{Server: s}
	}
	h.cloud = c
	return c
}

// to is the state that Nova's database has of an instance.
func (s *Server) to(vmState string) {
	s.VMState = vmState
	switch vmState {
	case VMActive:
		s.Status, s.PowerState = "ACTIVE", 1
	case VMPaused:
		s.Status, s.PowerState = "PAUSED", 3
	case VMStopped:
		s.Status, s.PowerState = "SHUTOFF", 4
	case VMResized:
		s.Status = "VERIFY_RESIZE"
	default:
		s.Status = strings.ToUpper(vmState)
	}
}

// get returns a look at an instance that counts for nothing.
func (c *fakeCloud) get(uuid string) fakeServer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.servers[uuid]
}

func (c *fakeCloud) change(uuid string, do func(*fakeServer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(c.servers[uuid])
}

// called counts the calls of a method, of all instances for an empty UUID.
func (c *fakeCloud) called(method, uuid string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, call := range c.calls {
		if m, u, _ := strings.Cut(call, " "); m == method && (uuid == "" || u == uuid) {
			n++
		}
	}
	return n
}

// call is what every method is wrapped in.
func (c *fakeCloud) call(ctx context.Context, method, uuid string, do func(*fakeServer) error) error {
	if c.point != nil {
		c.point("before " + method)
		defer c.point("after " + method)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, method+" "+uuid)
	if c.offline {
		c.t.Errorf("%s was asked of Nova by a run that is offline", method)
	}
	if next := c.once[method]; len(next) > 0 {
		c.once[method] = next[1:]
		if next[0] != nil {
			return next[0]
		}
	}
	if err := c.errs[method]; err != nil {
		return err
	}
	s := c.servers[uuid]
	if uuid != "" && s == nil {
		return ErrNoInstance
	}
	err := do(s)
	if lost := c.lost[method]; lost != nil && err == nil {
		delete(c.lost, method)
		return lost
	}
	return err
}

func (c *fakeCloud) Project(ctx context.Context, nameOrID, domain string) (id string, err error) {
	err = c.call(ctx, "Project", "", func(*fakeServer) error {
		var ids []string
		for _, p := range c.projects {
			if p.id == nameOrID {
				id = p.id
				return nil
			}
			if p.name == nameOrID && (domain == "" || p.domain == domain) {
				ids = append(ids, p.id)
			}
		}
		switch len(ids) {
		case 0:
			return ErrNoProject
		case 1:
			id = ids[0]
			return nil
		}
		return ErrAmbiguous
	})
	return id, err
}

func (c *fakeCloud) KeepsReasons() bool { return !c.noReasons }

func (c *fakeCloud) OwnProject() string { return c.own }

// shown is what Nova can say of an instance.
func (c *fakeCloud) shown(s *fakeServer) Server {
	if c.down {
		return Server{UUID: s.UUID, ProjectID: s.ProjectID, Unknown: true}
	}
	return s.Server
}

func (c *fakeCloud) Servers(ctx context.Context, filter ServerFilter) (list []Server, err error) {
	err = c.call(ctx, "Servers", "", func(*fakeServer) error {
		for _, uuid := range slices.Sorted(maps.Keys(c.servers)) {
			s := c.servers[uuid]
			if (filter.ProjectID == "" || s.ProjectID == filter.ProjectID) && (c.down || len(filter.Hosts) == 0 || slices.Contains(filter.Hosts, s.Host)) {
				list = append(list, c.shown(s))
			}
		}
		return nil
	})
	return list, err
}

func (c *fakeCloud) Server(ctx context.Context, uuid string) (server Server, err error) {
	err = c.call(ctx, "Server", uuid, func(s *fakeServer) error {
		if s.task != nil {
			if s.looks--; s.looks < 0 {
				task := s.task
				s.task = nil
				s.TaskState = ""
				task(s)
			}
		}
		server = c.shown(s)
		return nil
	})
	return server, err
}

func (c *fakeCloud) Deleted(ctx context.Context, uuid string) (deleted bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, "Deleted "+uuid)
	if err := c.errs["Deleted"]; err != nil {
		return false, err
	}
	return c.deleted[uuid] && !c.down && !c.offline, ctx.Err()
}

func (c *fakeCloud) ComputeService(ctx context.Context, host string) (service ComputeService, err error) {
	err = c.call(ctx, "ComputeService", "", func(*fakeServer) error { service = c.services[host]; return nil })
	return service, err
}

func (c *fakeCloud) Lock(ctx context.Context, uuid, reason string) error {
	return c.call(ctx, "Lock", uuid, func(s *fakeServer) error {
		s.Locked, s.LockedReason = true, reason
		return nil
	})
}

func (c *fakeCloud) Unlock(ctx context.Context, uuid string) error {
	return c.call(ctx, "Unlock", uuid, func(s *fakeServer) error {
		s.Locked, s.LockedReason = false, ""
		return nil
	})
}

// HardReboot is accepted while another one is under way, as Nova's is
// (nova/compute/task_states.py, ALLOW_REBOOT): only the caller can know better.
func (c *fakeCloud) HardReboot(ctx context.Context, uuid string) error {
	return c.call(ctx, "HardReboot", uuid, func(s *fakeServer) error {
		if s.TaskState != "" && !rebooting(s.Server) || unrebootable(s.Server) != "" {
			return fmt.Errorf("%w: it is in vm_state %s, task_state %s", ErrTaskUnderWay, s.VMState, s.TaskState)
		}
		c.reboot(s)
		return nil
	})
}

// reboot begins a hard reboot, whoever asks: the domain is destroyed and undefined
// before its files are looked for (nova/virt/libvirt/driver.py, _hard_reboot).
func (c *fakeCloud) reboot(s *fakeServer) {
	c.requests++
	s.reboots++
	s.last = fmt.Sprint("req-", c.requests)
	s.TaskState = "rebooting_hard"
	if _, ok := c.hv.lookup(s.UUID); ok {
		c.hv.forget(s.UUID)
	}
	s.looks, s.task = c.taking, func(s *fakeServer) {
		gone := c.hv.define(s.UUID)
		for _, f := range expectedFiles(gone, "/nowhere") {
			if f.Role == RoleConsoleLog || f.Role == RoleDiskInfo {
				continue
			}
			if _, err := os.Stat(f.Path); err != nil {
				c.hv.forget(s.UUID)
				s.to(VMError)
				s.Fault = "No disk at " + f.Path
				return
			}
		}
		// Formats are noted anew (nova/virt/libvirt/imagebackend.py, resolve_driver_format).
		for _, f := range expectedFiles(gone, "/nowhere") {
			info := filepath.Join(filepath.Dir(f.Path), diskInfoName)
			if _, err := os.Stat(info); f.Role == RoleDisk && err != nil {
				_ = os.WriteFile(info, []byte("{}"), 0o600)
			}
		}
		if err := c.hv.Start(context.Background(), s.UUID, false); err != nil {
			c.t.Errorf("Nova could not start the domain: %v", err)
		}
		s.Fault = ""
		s.to(VMActive)
	}
}

// stop is Nova that stops an instance by itself, some looks later.
func (c *fakeCloud) stop(s *fakeServer, looks int) {
	s.TaskState = "powering-off"
	s.looks, s.task = looks, func(s *fakeServer) {
		if _, ok := c.hv.lookup(s.UUID); ok {
			c.hv.change(s.UUID, (*fakeDomain).off)
		}
		s.to(VMStopped)
	}
}

func (c *fakeCloud) Pause(ctx context.Context, uuid string) error {
	return c.call(ctx, "Pause", uuid, func(s *fakeServer) error {
		if s.VMState != VMActive || s.TaskState != "" {
			return ErrTaskUnderWay
		}
		if err := c.hv.Suspend(context.Background(), uuid); err != nil {
			return err
		}
		s.to(VMPaused)
		return nil
	})
}

func (c *fakeCloud) LastReboot(ctx context.Context, uuid string) (request string, err error) {
	err = c.call(ctx, "LastReboot", uuid, func(s *fakeServer) error { request = s.last; return nil })
	return request, err
}

// away is Nova that does not answer.
func (c *fakeCloud) away(methods ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range methods {
		c.errs[m] = fmt.Errorf("%w: 503", ErrCloudUnavailable)
	}
}

// back is Nova that answers again.
func (c *fakeCloud) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs, c.once, c.lost = map[string]error{}, map[string][]error{}, map[string]error{}
}

// in checks what Nova has of an instance after a run.
func (c *fakeCloud) in(uuid, vmState string, locked bool, reboots int) error {
	s := c.get(uuid)
	switch {
	case s.VMState != vmState || s.TaskState != "":
		return fmt.Errorf("Nova has it as %s (task %q, fault %q), not %s", s.VMState, s.TaskState, s.Fault, vmState)
	case s.Locked != locked:
		return fmt.Errorf("locked in Nova: %t (%s)", s.Locked, s.LockedReason)
	case s.reboots != reboots:
		return fmt.Errorf("Nova has rebooted it %d times, not %d", s.reboots, reboots)
	}
	return nil
}

// errAnswer is a request whose answer never came.
var errAnswer = errors.Join(ErrCloudUnavailable, errors.New("connection reset by peer"))
