package recovertest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// Project finds a project by its ID, else by its name.
func (c *FakeCloud) Project(ctx context.Context, nameOrID, domain string) (id string, err error) {
	err = c.call(ctx, "Project", "", func(*FakeServer) error {
		var ids []string
		for _, p := range c.Projects {
			if p.ID == nameOrID {
				id = p.ID
				return nil
			}
			if p.Name == nameOrID && (domain == "" || p.Domain == domain || p.domainName == domain) {
				ids = append(ids, p.ID)
			}
		}
		switch len(ids) {
		case 0:
			return recover.ErrNoProject
		case 1:
			id = ids[0]
			return nil
		}
		return recover.ErrAmbiguous
	})
	return id, err
}

// KeepsReasons is false with NoReasons.
func (c *FakeCloud) KeepsReasons() bool { return !c.NoReasons }

// OwnProject returns Own.
func (c *FakeCloud) OwnProject() string { return c.Own }

// lost is true when Nova can't say anything of an instance.
func (c *FakeCloud) lost(s *FakeServer) bool { return c.Down || s.down }

// shown is what Nova can say of an instance.
func (c *FakeCloud) shown(s *FakeServer) recover.Server {
	if c.lost(s) {
		return recover.Server{UUID: s.UUID, ProjectID: s.ProjectID, Status: "UNKNOWN", Unknown: true}
	}
	shown := s.Server
	if c.NoReasons {
		shown.LockedReason = ""
	}
	return shown
}

// act runs an action on an instance whose cell is up.
func (c *FakeCloud) act(ctx context.Context, method, uuid string, do func(*FakeServer) error) error {
	return c.call(ctx, method, uuid, func(s *FakeServer) error {
		if c.lost(s) {
			return fmt.Errorf("%w: 500", recover.ErrCloudUnavailable)
		}
		return do(s)
	})
}

// Servers lists the instances by UUID.
func (c *FakeCloud) Servers(ctx context.Context, filter recover.ServerFilter) (list []recover.Server, err error) {
	err = c.call(ctx, "Servers", "", func(*FakeServer) error {
		for _, uuid := range slices.Sorted(maps.Keys(c.Instances)) {
			s := c.Instances[uuid]
			if (filter.ProjectID == "" || s.ProjectID == filter.ProjectID) &&
				(c.lost(s) || len(filter.Hosts) == 0 || slices.Contains(filter.Hosts, s.Host)) {
				list = append(list, c.shown(s))
			}
		}
		return nil
	})
	return list, err
}

// Server shows an instance; a task that is under way on it goes one step further.
func (c *FakeCloud) Server(ctx context.Context, uuid string) (server recover.Server, err error) {
	err = c.call(ctx, "Server", uuid, func(s *FakeServer) error {
		if s.Task != nil {
			if s.Looks--; s.Looks < 0 {
				task := s.Task
				s.Task = nil
				s.TaskState = ""
				task(s)
			}
		}
		server = c.shown(s)
		return nil
	})
	return server, err
}

// Deleted is true of what Deletes was called for, while its cell is up.
func (c *FakeCloud) Deleted(ctx context.Context, uuid string) (deleted bool, err error) {
	err = ctx.Err()
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.Calls = append(c.Calls, "Deleted "+uuid)
	if err == nil {
		err = c.send("Deleted")
	}
	if err == nil {
		err = c.Errs["Deleted"]
	}
	if err != nil {
		return false, err
	}
	return c.removed[uuid] && !c.Down && !c.Offline, nil
}

// ComputeService returns what Services has of a host.
func (c *FakeCloud) ComputeService(ctx context.Context, host string) (service recover.ComputeService, err error) {
	err = c.call(ctx, "ComputeService", "", func(*FakeServer) error {
		if c.lostHosts[host] {
			return recover.ErrCloudUnavailable
		}
		service = c.Services[host]
		return nil
	})
	return service, err
}

// Lock locks an instance as an administrator.
func (c *FakeCloud) Lock(ctx context.Context, uuid, reason string) error {
	return c.act(ctx, "Lock", uuid, func(s *FakeServer) error {
		s.Locked, s.LockedReason, s.ownersLock = true, reason, false
		return nil
	})
}

// Unlock undoes every lock.
func (c *FakeCloud) Unlock(ctx context.Context, uuid string) error {
	return c.act(ctx, "Unlock", uuid, func(s *FakeServer) error {
		s.Locked, s.LockedReason = false, ""
		return nil
	})
}

// HardReboot is accepted while another one is under way, as Nova's is
// (nova/compute/task_states.py, ALLOW_REBOOT): only the caller can know better.
func (c *FakeCloud) HardReboot(ctx context.Context, uuid string) error {
	return c.act(ctx, "HardReboot", uuid, func(s *FakeServer) error {
		if s.TaskState != "" && !strings.HasPrefix(s.TaskState, "reboot") || !rebootable(s.VMState) {
			return fmt.Errorf("%w: it is in vm_state %s, task_state %s", recover.ErrTaskUnderWay, s.VMState, s.TaskState)
		}
		c.Reboot(s)
		return nil
	})
}

// rebootable is true of the states from which Nova hard reboots
// (nova/compute/api.py, _hard_reboot_instance).
func rebootable(vmState string) bool {
	return slices.Contains([]string{
		recover.VMActive, recover.VMStopped, recover.VMPaused, recover.VMSuspended, recover.VMError,
	}, vmState)
}

// Reboot begins a hard reboot, whoever asks, under the lock: the domain is destroyed
// and undefined before its files are looked for (nova/virt/libvirt/driver.py,
// _hard_reboot).
func (c *FakeCloud) Reboot(s *FakeServer) {
	c.requests++
	s.Reboots++
	s.Last = fmt.Sprint("req-", c.requests)
	s.TaskState = "rebooting_hard"
	if c.hv.knows(s.UUID) {
		c.hv.Forget(s.UUID)
	}
	s.Looks, s.Task = c.Taking, c.finishReboot
}

// finishReboot starts the instance, if all its files are there.
func (c *FakeCloud) finishReboot(s *FakeServer) {
	gone := c.hv.recall(s.UUID)
	var disks []recover.File
	for _, f := range filesOf(gone) {
		if f.Role == recover.RoleConsoleLog {
			continue
		}
		if _, err := os.Stat(f.Path); err != nil {
			c.hv.Forget(s.UUID)
			s.To(recover.VMError)
			s.Fault = "No disk at " + f.Path
			return
		}
		if f.Role == recover.RoleDisk {
			disks = append(disks, f)
		}
	}
	// Formats are noted anew (nova/virt/libvirt/imagebackend.py, resolve_driver_format).
	for _, f := range disks {
		info := filepath.Join(filepath.Dir(f.Path), recover.DiskInfoName)
		if _, err := os.Stat(info); err != nil {
			_ = os.WriteFile(info, []byte("{}"), 0o600) // a test may have made the directory read-only
		}
	}
	if err := c.hv.Start(context.Background(), s.UUID, false); err != nil {
		c.t.Errorf("Nova could not start the domain: %v", err)
	}
	s.Fault = ""
	s.To(recover.VMActive)
}

// Stop is Nova that stops an instance by itself, some looks later, under the lock.
func (c *FakeCloud) Stop(s *FakeServer, looks int) {
	s.TaskState = "powering-off"
	s.Looks, s.Task = looks, func(s *FakeServer) {
		if c.hv.knows(s.UUID) {
			c.hv.Change(s.UUID, (*FakeDomain).Off)
		}
		s.To(recover.VMStopped)
	}
}

// Pause suspends the domain at once.
func (c *FakeCloud) Pause(ctx context.Context, uuid string) error {
	return c.act(ctx, "Pause", uuid, func(s *FakeServer) error {
		if s.VMState != recover.VMActive || s.TaskState != "" {
			return recover.ErrTaskUnderWay
		}
		if err := c.hv.Suspend(context.Background(), uuid); err != nil {
			return err
		}
		s.To(recover.VMPaused)
		return nil
	})
}

// LastReboot returns "req-N" for the N-th hard reboot that was accepted.
func (c *FakeCloud) LastReboot(ctx context.Context, uuid string) (request string, err error) {
	err = c.act(ctx, "LastReboot", uuid, func(s *FakeServer) error { request = s.Last; return nil })
	return request, err
}
