package recovertest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// TestCloud holds an implementation of recover.Cloud against what the comments of that
// interface say.
func TestCloud(t *testing.T, bed CloudBed) {
	for _, part := range []struct {
		name  string
		scene Scene
		test  func(*cloudSuite)
	}{
		{"the project of a token", SceneSignIn, (*cloudSuite).ownProject},
		{"a project's ID", SceneProjects, (*cloudSuite).projects},
		{"a project that the user may not look up", SceneMembersProjects, (*cloudSuite).othersProjects},
		{"every page of a list", ScenePages, (*cloudSuite).pages},
		{"a list with a filter", SceneList, (*cloudSuite).lists},
		{"a cell that is down", SceneCellDown, (*cloudSuite).cellDown},
		{"an instance as it is now", SceneRecord, (*cloudSuite).record},
		{"an instance that is not there", SceneNobody, (*cloudSuite).noInstance},
		{"an instance that the user may not see", SceneMember, (*cloudSuite).hidden},
		{"a lock", SceneLock, (*cloudSuite).locks},
		{"a lock of the owner's", SceneOwnersLock, (*cloudSuite).ownersLock},
		{"a task under way", SceneTasks, (*cloudSuite).tasks},
		{"a host's nova-compute", SceneServices, (*cloudSuite).services},
		{"a deleted instance", SceneDeleted, (*cloudSuite).deleted},
		{"what is likely to pass", SceneRecord, (*cloudSuite).passes},
		{"what must not be carried out twice", SceneReboot, (*cloudSuite).once},
		{"a Nova that does not answer", SceneReboot, (*cloudSuite).unavailable},
		{"a token that has run out", SceneReboot, (*cloudSuite).renews},
		{"a user who is not accepted any more", SceneReboot, (*cloudSuite).refused},
		{"a context that has ended", SceneReboot, (*cloudSuite).ended},
		{"many calls at once", SceneRecord, (*cloudSuite).concurrent},
	} {
		t.Run(part.name, func(t *testing.T) {
			part.test(&cloudSuite{T: t, ctx: t.Context(), scene: bed.Open(t, part.scene)})
		})
	}
}

// cloudSuite is one part of TestCloud.
type cloudSuite struct {
	*testing.T
	ctx   context.Context
	scene CloudScene
}

func (s *cloudSuite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// fails checks that an error is the one that the port promises, nil for none, and no
// other of them.
func (s *cloudSuite) fails(what string, err, want error) {
	s.Helper()
	if (err == nil) != (want == nil) {
		s.Errorf("%s: error %v, want %v", what, err, want)
		return
	}
	for _, kind := range []error{
		recover.ErrNoInstance, recover.ErrCloudUnavailable, recover.ErrCredentials, recover.ErrForbidden, recover.ErrTaskUnderWay,
		recover.ErrAmbiguous, recover.ErrNoProject, context.Canceled,
	} {
		if errors.Is(err, kind) != errors.Is(want, kind) {
			s.Errorf("%s: error %v, want %v", what, err, want)
			return
		}
	}
}

// waits returns the instance in a state with no task, which it is on its way to.
func (s *cloudSuite) waits(c recover.Cloud, name, vmState string) recover.Server {
	s.Helper()
	const most = 500
	for range most {
		server, err := c.Server(s.ctx, s.scene.Instances[name])
		s.must(err)
		if server.VMState == vmState && server.TaskState == "" {
			return server
		}
		s.scene.Wait()
	}
	s.Fatalf("%s did not become %s", name, vmState)
	return recover.Server{}
}

func names(list []recover.Server) []string {
	var all []string
	for _, server := range list {
		all = append(all, server.Name)
	}
	slices.Sort(all)
	return all
}

func (s *cloudSuite) ownProject() {
	if own := s.scene.Admin(s.T).OwnProject(); own != s.scene.AdminProject {
		s.Errorf("the administrator's is %q, want %q", own, s.scene.AdminProject)
	}
	if own := s.scene.Member(s.T).OwnProject(); own != s.scene.Project {
		s.Errorf("the member's is %q, want %q", own, s.scene.Project)
	}
}

func (s *cloudSuite) projects() {
	v := s.scene
	c := v.Admin(s.T)
	for _, p := range []struct {
		name, domain, id string
		err              error
	}{
		{name: v.Project, id: v.Project},
		{name: v.AdminProjectName, id: v.AdminProject},
		{name: v.ProjectName, err: recover.ErrAmbiguous},
		{name: v.ProjectName, domain: "default", id: v.Project},
		{name: v.ProjectName, domain: v.TwinDomain, id: v.Twin},
		{name: v.ProjectName, domain: v.TwinDomainName, id: v.Twin},
		{name: v.ProjectName, domain: "no-such-domain", err: recover.ErrNoProject},
		{name: "no-such-project", err: recover.ErrNoProject},
		{name: "", err: recover.ErrNoProject},
	} {
		id, err := c.Project(s.ctx, p.name, p.domain)
		s.fails("Project "+p.name+" in "+p.domain, err, p.err)
		if id != p.id {
			s.Errorf("Project(%q, %q) is %q, want %q", p.name, p.domain, id, p.id)
		}
	}
}

func (s *cloudSuite) othersProjects() {
	c := s.scene.Member(s.T)
	id, err := c.Project(s.ctx, s.scene.Project, "")
	if err != nil || id != s.scene.Project {
		s.Errorf("the user's own project is %q, error %v", id, err)
	}
	for _, other := range []string{s.scene.AdminProjectName, s.scene.Twin} {
		_, err := c.Project(s.ctx, other, "")
		s.fails("another project", err, recover.ErrForbidden)
	}
}

func (s *cloudSuite) pages() {
	list, err := s.scene.Admin(s.T).Servers(s.ctx, recover.ServerFilter{ProjectID: s.scene.Project})
	s.must(err)
	if got, want := names(list), []string{"big", "web1", "web2", "web3", "web4"}; !slices.Equal(got, want) {
		s.Errorf("the instances of the project are %v, want %v", got, want)
	}
	for _, server := range list {
		if server.ProjectID != s.scene.Project || server.Unknown {
			s.Errorf("listed: %+v", server)
		}
	}
}

func (s *cloudSuite) lists() {
	c := s.scene.Admin(s.T)
	all, err := c.Servers(s.ctx, recover.ServerFilter{})
	s.must(err)
	here, err := c.Servers(s.ctx, recover.ServerFilter{ProjectID: s.scene.Project, Hosts: []string{s.scene.Host}})
	s.must(err)
	nowhere, err := c.Servers(s.ctx, recover.ServerFilter{Hosts: []string{"elsewhere"}})
	s.must(err)
	for name, uuid := range s.scene.Instances {
		of := func(list []recover.Server) int {
			n := 0
			for _, server := range list {
				if server.UUID == uuid && server.Name == name {
					n++
				}
			}
			return n
		}
		onHost := 1
		if name == "big" {
			onHost = 0
		}
		if of(all) != 1 || of(here) != onHost || of(nowhere) != 0 {
			s.Errorf("%s is %d times in the whole list, %d in its host's, %d in another's", name, of(all), of(here), of(nowhere))
		}
	}
	if len(nowhere) != 0 || len(here) >= len(all) {
		s.Errorf("%d instances in all, %d here, %d on a host without any", len(all), len(here), len(nowhere))
	}
}

// cellDown: what Nova can't see is unknown, and not gone.
func (s *cloudSuite) cellDown() {
	web4 := s.scene.Instances["web4"]
	c := s.scene.Admin(s.T)
	unknown := func(what string, server recover.Server) {
		s.Helper()
		known := recover.Server{UUID: web4, ProjectID: server.ProjectID, Status: server.Status, Unknown: true}
		if server != known || server.ProjectID != "" && server.ProjectID != s.scene.Project {
			s.Errorf("%s of an instance whose cell is down: %+v", what, server)
		}
	}
	server, err := c.Server(s.ctx, web4)
	s.must(err)
	unknown("Server", server)
	for name, filter := range map[string]recover.ServerFilter{
		"all":       {},
		"a project": {ProjectID: s.scene.Project},
		"a host":    {Hosts: []string{s.scene.Host}},
	} {
		list, err := c.Servers(s.ctx, filter)
		s.must(err)
		seen := map[string]int{}
		for _, server := range list {
			seen[server.UUID]++
			if server.UUID == web4 {
				unknown("the list of "+name, server)
			} else if server.Unknown {
				s.Errorf("the list of %s: %+v", name, server)
			}
		}
		if seen[web4] != 1 || seen[s.scene.Instances["web1"]] != 1 {
			s.Errorf("the list of %s has the unknown one %d times, another one %d times", name, seen[web4], seen[s.scene.Instances["web1"]])
		}
	}
	list, err := c.Servers(s.ctx, recover.ServerFilter{ProjectID: s.scene.AdminProject})
	if err != nil || len(list) != 0 {
		s.Errorf("another project's list: %+v, error %v", list, err)
	}
	_, err = c.ComputeService(s.ctx, s.scene.LostHost)
	s.fails("a host's service", err, recover.ErrCloudUnavailable)
	s.fails("Lock", c.Lock(s.ctx, web4, "why"), recover.ErrCloudUnavailable)
	s.fails("HardReboot", c.HardReboot(s.ctx, web4), recover.ErrCloudUnavailable)
}

// record: Server and a lock's reason.
func (s *cloudSuite) record() {
	c := s.scene.Admin(s.T)
	web1 := s.scene.Instances["web1"]
	got, err := c.Server(s.ctx, web1)
	s.must(err)
	want := recover.Server{
		UUID: web1, Name: "web1", ProjectID: s.scene.Project, Host: s.scene.Host, Domain: got.Domain,
		Status: "ACTIVE", VMState: recover.VMActive, PowerState: powerRunning,
	}
	if got != want || !strings.HasPrefix(got.Domain, "instance-") {
		s.Errorf("the record is\n%+v, want\n%+v", got, want)
	}
	s.must(c.Lock(s.ctx, web1, lockReason))
	want.Locked = true
	if c.KeepsReasons() {
		want.LockedReason = lockReason
	}
	if got, err = c.Server(s.ctx, web1); err != nil || got != want {
		s.Errorf("locked, the record is\n%+v, error %v, want\n%+v", got, err, want)
	}
	for _, what := range []string{"Unlock", "Unlock of what is not locked"} {
		if err := c.Unlock(s.ctx, web1); err != nil {
			s.Errorf("%s: %v", what, err)
		}
	}
	big, err := c.Server(s.ctx, s.scene.Instances["big"])
	s.must(err)
	if big.Status != "ERROR" || big.VMState != recover.VMError || big.TaskState != "" || big.Host != "" || big.Unknown || big.Fault == "" {
		s.Errorf("the record of one in ERROR that no host has: %+v", big)
	}
}

// noInstance: ErrNoInstance from every method about one instance.
func (s *cloudSuite) noInstance() {
	c := s.scene.Admin(s.T)
	_, err := c.Server(s.ctx, nobody)
	s.fails("Server", err, recover.ErrNoInstance)
	s.fails("Lock", c.Lock(s.ctx, nobody, "why"), recover.ErrNoInstance)
	s.fails("Unlock", c.Unlock(s.ctx, nobody), recover.ErrNoInstance)
	s.fails("HardReboot", c.HardReboot(s.ctx, nobody), recover.ErrNoInstance)
	s.fails("Pause", c.Pause(s.ctx, nobody), recover.ErrNoInstance)
	_, err = c.LastReboot(s.ctx, nobody)
	s.fails("LastReboot", err, recover.ErrNoInstance)
}

// hidden: what the user may not see is ErrForbidden, and never ErrNoInstance.
func (s *cloudSuite) hidden() {
	c := s.scene.Member(s.T)
	_, err := c.Servers(s.ctx, recover.ServerFilter{ProjectID: s.scene.Project})
	s.fails("Servers", err, recover.ErrForbidden)
	_, err = c.Server(s.ctx, s.scene.Instances["web1"])
	s.fails("Server of the user's own project", err, recover.ErrForbidden)
	_, err = s.scene.Member(s.T).Server(s.ctx, nobody)
	s.fails("Server of what may be another project's", err, recover.ErrForbidden)
}

// locks: an administrator's lock stops the owner and not the administrator.
func (s *cloudSuite) locks() {
	web2 := s.scene.Instances["web2"]
	admin, owner := s.scene.Admin(s.T), s.scene.Member(s.T)
	s.must(admin.Lock(s.ctx, web2, "mine"))
	s.fails("the owner's HardReboot", owner.HardReboot(s.ctx, web2), recover.ErrTaskUnderWay)
	s.fails("the owner's Pause", owner.Pause(s.ctx, web2), recover.ErrTaskUnderWay)
	s.fails("the owner's Unlock", owner.Unlock(s.ctx, web2), recover.ErrForbidden)
	s.must(owner.Lock(s.ctx, web2, "no, mine"))
	server, err := admin.Server(s.ctx, web2)
	s.must(err)
	if !server.Locked || admin.KeepsReasons() && server.LockedReason != "mine" {
		s.Errorf("after the owner's lock on top: %+v", server)
	}

	last := func() string {
		s.Helper()
		id, err := admin.LastReboot(s.ctx, web2)
		s.must(err)
		return id
	}
	if id := last(); id != "" {
		s.Errorf("before any reboot the last is %q", id)
	}
	s.must(admin.HardReboot(s.ctx, web2))
	first := last()
	if server := s.waits(admin, "web2", recover.VMActive); !server.Locked {
		s.Errorf("after a reboot it is not locked: %+v", server)
	}
	s.must(admin.Unlock(s.ctx, web2))
	s.must(admin.HardReboot(s.ctx, web2))
	second := last()
	if first == "" || second == "" || first == second {
		s.Errorf("the last reboot was %q, and after a second one %q", first, second)
	}
	if server := s.waits(admin, "web2", recover.VMActive); server.Locked || server.LockedReason != "" {
		s.Errorf("after Unlock: %+v", server)
	}
}

func (s *cloudSuite) ownersLock() {
	owner := s.scene.Member(s.T)
	s.must(owner.Lock(s.ctx, s.scene.Instances["web3"], ""))
	s.must(owner.Unlock(s.ctx, s.scene.Instances["web3"]))
}

// tasks: what Nova does not allow now, and what it does when it is asked.
func (s *cloudSuite) tasks() {
	c := s.scene.Admin(s.T)
	web3, web4 := s.scene.Instances["web3"], s.scene.Instances["web4"]
	if server := s.waits(c, "web3", recover.VMRescued); server.Status != "RESCUE" {
		s.Errorf("rescued: %+v", server)
	}
	s.fails("HardReboot of a rescued one", c.HardReboot(s.ctx, web3), recover.ErrTaskUnderWay)

	server, err := c.Server(s.ctx, web4)
	s.must(err)
	if server.TaskState != "powering-off" {
		s.Errorf("being stopped: %+v", server)
	}
	s.fails("HardReboot of one that is being stopped", c.HardReboot(s.ctx, web4), recover.ErrTaskUnderWay)
	if server := s.waits(c, "web4", recover.VMStopped); server.Status != "SHUTOFF" || server.PowerState != powerShutdown {
		s.Errorf("stopped: %+v", server)
	}
	s.fails("Pause of a stopped one", c.Pause(s.ctx, web4), recover.ErrTaskUnderWay)

	s.must(c.HardReboot(s.ctx, web4))
	server, err = c.Server(s.ctx, web4)
	s.must(err)
	if server.TaskState == "" && server.VMState != recover.VMActive {
		s.Errorf("after a HardReboot that was accepted: %+v", server)
	}
	if server := s.waits(c, "web4", recover.VMActive); server.Status != "ACTIVE" || server.PowerState != powerRunning {
		s.Errorf("rebooted: %+v", server)
	}
	s.must(c.Pause(s.ctx, web4))
	if server := s.waits(c, "web4", recover.VMPaused); server.Status != "PAUSED" || server.PowerState != powerPaused {
		s.Errorf("paused: %+v", server)
	}
}

func (s *cloudSuite) services() {
	c := s.scene.Admin(s.T)
	service, err := c.ComputeService(s.ctx, s.scene.Host)
	s.must(err)
	if !service.Known || !service.Up || service.Disabled || service.DisabledReason != "" || service.UpdatedAt.IsZero() {
		s.Errorf("of a host: %+v", service)
	}
	service, err = c.ComputeService(s.ctx, "elsewhere")
	if err != nil || service != (recover.ComputeService{}) {
		s.Errorf("of no host: %+v, error %v", service, err)
	}
	_, err = s.scene.Member(s.T).ComputeService(s.ctx, s.scene.Host)
	s.fails("a member's ComputeService", err, recover.ErrForbidden)
}

func (s *cloudSuite) deleted() {
	c := s.scene.Admin(s.T)
	for name, want := range map[string]bool{"web1": true, "web2": false} {
		if got, err := c.Deleted(s.ctx, s.scene.Instances[name]); got != want || err != nil {
			s.Errorf("%s is deleted: %v, error %v, want %v", name, got, err, want)
		}
	}
	_, err := s.scene.Member(s.T).Deleted(s.ctx, s.scene.Instances["web1"])
	s.fails("a member's Deleted", err, recover.ErrForbidden)
}
