package recovertest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// novaBed is TestCloud's bed on the fake Nova.
type novaBed struct{ noReasons bool }

func TestTheFakeNovaDoesWhatThePortSays(t *testing.T) { TestCloud(t, novaBed{}) }

func TestTheFakeNovaThatKeepsNoReasonsDoesToo(t *testing.T) { TestCloud(t, novaBed{noReasons: true}) }

func (b novaBed) Open(t *testing.T, scene Scene) CloudScene {
	t.Helper()
	hv := newHypervisor()
	t.Cleanup(hv.EndAll)
	c := NewCloud(t, hv)
	c.Own, c.NoReasons = "p0", b.noReasons
	c.Projects = []FakeProject{
		{ID: "p0", Name: "admin", Domain: "default", domainName: "Default"},
		{ID: "p1", Name: "webshop", Domain: "default", domainName: "Default"},
		{ID: "p2", Name: "webshop", Domain: "d1", domainName: "partners"},
	}
	const host, lost = "compute1", "compute2"
	c.Services[host] = recover.ComputeService{Known: true, Up: true, UpdatedAt: time.Now()}
	s := CloudScene{
		Admin:   func(*testing.T) recover.Cloud { return c },
		Member:  func(*testing.T) recover.Cloud { return c.asMember("p1") },
		Project: "p1", ProjectName: "webshop", Twin: "p2", TwinDomain: "d1", TwinDomainName: "partners",
		AdminProject: "p0", AdminProjectName: "admin", Host: host, LostHost: lost,
		Instances: map[string]string{},
		Wait:      func() {},
		Fail: func(n int) {
			c.Mu.Lock()
			defer c.Mu.Unlock()
			c.failing, c.attempts = n, 0
		},
		Actions: func() int {
			c.Mu.Lock()
			defer c.Mu.Unlock()
			return c.attempts
		},
		Expire: func() {}, // the fake has no tokens
		Revoke: func() {
			for _, method := range []string{"Server", "LastReboot", "Lock", "Unlock", "HardReboot", "Pause"} {
				c.Fail(method, recover.ErrCredentials)
			}
		},
	}
	for n, name := range []string{"big", "web1", "web2", "web3", "web4"} {
		s.Instances[name] = UUID(n)
		addServer(t, c, n, name, host)
	}
	c.Change(s.Instances["big"], func(big *FakeServer) {
		big.To(recover.VMError)
		big.Host, big.PowerState, big.Fault = "", 0, "No valid host was found."
	})
	switch scene {
	case SceneCellDown:
		c.lostHosts[lost] = true
		c.Change(s.Instances["web4"], func(s *FakeServer) { s.down, s.Host = true, lost })
	case SceneTasks:
		c.Change(s.Instances["web3"], func(s *FakeServer) {
			s.TaskState, s.Looks, s.Task = "rescuing", 1, func(s *FakeServer) { s.To(recover.VMRescued) }
		})
		c.Change(s.Instances["web4"], func(s *FakeServer) { c.Stop(s, 1) })
	case SceneDeleted:
		c.Deletes(s.Instances["web1"])
	}
	return s
}

// addServer gives Nova an active instance, and the hypervisor its domain.
func addServer(t *testing.T, c *FakeCloud, n int, name, host string) {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	const size = 64 << 10
	Must(t, os.WriteFile(disk, Payload(n, size), 0o600))
	d := recover.Domain{UUID: UUID(n), Name: fmt.Sprintf("instance-%08x", n), State: recover.StateShutOff, Persistent: true,
		Nova:  &recover.NovaMetadata{Name: name, ProjectID: "p1"},
		Disks: []recover.Disk{{Target: "vda", Device: "disk", Chain: []recover.Image{{Source: recover.SourceFile, Path: disk, Format: "raw"}}}}}
	c.hv.Add(d, false)
	Must(t, c.hv.Start(t.Context(), d.UUID, false))
	c.addDomain(c.hv.Get(d.UUID).Domain, host)
}
