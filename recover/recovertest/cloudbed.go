package recovertest

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// CloudBed gives TestCloud an implementation of recover.Cloud to look at, in a cloud
// that is as a scene says.
type CloudBed interface {
	// Open returns the scene. It ends with the test. The suite asks of a scene what its
	// comment says, in that order, so that a scene can be a recording.
	Open(t *testing.T, scene Scene) CloudScene
}

// Scene says what a cloud is like. Every one has a project webshop in the domain default
// with the instances web1 to web4, which are active on Host, and big, which no host
// could take. Its twin of the same name is in another domain. An administrator is signed
// in to a further project, and a user with the role member to webshop.
type Scene string

// The scenes.
const (
	// SceneSignIn: both users sign in.
	SceneSignIn Scene = "sign-in"
	// SceneProjects: an administrator looks projects up.
	SceneProjects Scene = "projects"
	// SceneMembersProjects: a member looks projects up.
	SceneMembersProjects Scene = "members-projects"
	// ScenePages: an administrator lists the instances of webshop, page by page if the
	// implementation knows pages.
	ScenePages Scene = "pages"
	// SceneList: an administrator lists all instances, those of webshop on Host, and those
	// on a host "elsewhere".
	SceneList Scene = "list"
	// SceneCellDown: web4 and LostHost are of a cell that is down. An administrator reads,
	// lists all, those of webshop, those of Host and those of the administrators' project,
	// looks at LostHost's service, and tries to lock (for "why") and to reboot web4.
	SceneCellDown Scene = "cell-down"
	// SceneRecord: an administrator reads web1, locks it for lockReason, reads it, unlocks
	// it twice, and reads big.
	SceneRecord Scene = "record"
	// SceneNobody: an administrator asks for an instance that is not there; a lock's reason
	// is "why".
	SceneNobody Scene = "nobody"
	// SceneMember: a member lists the instances of webshop and reads web1; signed in anew, it
	// reads an instance that is not there.
	SceneMember Scene = "member"
	// SceneLock: an administrator locks web2 ("mine"). A member tries to reboot, to pause
	// and to unlock it, and locks it ("no, mine"). The administrator reads it and its last
	// reboot, reboots it, reads its last reboot and waits; unlocks it, reboots it, reads its
	// last reboot and waits.
	SceneLock Scene = "lock"
	// SceneOwnersLock: a member locks web3 for no reason, and unlocks it.
	SceneOwnersLock Scene = "owners-lock"
	// SceneTasks: web3 is being rescued, web4 stopped. An administrator waits for web3 and
	// tries to reboot it; reads web4, tries to reboot it, waits, tries to pause it, reboots
	// it, waits, pauses it, and waits.
	SceneTasks Scene = "tasks"
	// SceneServices: an administrator looks at the services of Host and of "elsewhere", a
	// member at that of Host.
	SceneServices Scene = "services"
	// SceneDeleted: web1 has been deleted; an administrator asks whether it and web2 were,
	// a member whether web1 was.
	SceneDeleted Scene = "deleted"
	// SceneReboot: an administrator reboots web1. Expire works in this scene.
	SceneReboot Scene = "reboot"
)

// CloudScene is a scene that was set.
type CloudScene struct {
	// Admin and Member sign a user in.
	Admin, Member func(t *testing.T) recover.Cloud

	Project, ProjectName           string            // webshop: its ID and its name
	Twin                           string            // the ID of the other webshop
	TwinDomain, TwinDomainName     string            // the ID and the name of that one's Keystone domain
	AdminProject, AdminProjectName string            // the administrator's
	Host                           string            // on which the instances are
	LostHost                       string            // of the cell that is down in SceneCellDown
	Instances                      map[string]string // UUIDs by name: web1 to web4, big

	// Wait passes some time between two looks at a task.
	Wait func()
	// Fail has the next n requests about instances find no Nova that answers; all of them
	// for a negative n.
	Fail func(n int)
	// Actions is how many requests to change an instance were made since Fail was called,
	// those that were not answered included.
	Actions func() int
	// Expire has the token of whoever is signed in run out, Revoke have Keystone accept
	// nobody any more.
	Expire, Revoke func()
}

// lockReason is that of SceneRecord's lock.
const lockReason = "disk is being brought back"
