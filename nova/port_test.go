package nova

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestKeystoneAndNovaDoWhatThePortSays(t *testing.T) {
	if bed != nil {
		t.Skip("the answers are recorded by the tests that they were recorded for")
	}
	recovertest.TestCloud(t, recordedBed{})
}

// recordedBed is recovertest's bed on recorded answers.
type recordedBed struct{}

func (recordedBed) Open(t *testing.T, scene recovertest.Scene) recovertest.CloudScene {
	t.Helper()
	var c *cloud
	if scene == recovertest.SceneDeleted {
		c = deletedCloud(t)
	} else {
		c = openCloud(t, recordingOf(t, scene))
	}
	opts := quick()
	switch scene {
	case recovertest.ScenePages:
		opts.pageSize = 2
	case recovertest.SceneCellDown:
		opts.RetryFor = 50 * time.Millisecond // for what does not pass
	}
	renewals := &expire{next: *c.handler}
	if scene == recovertest.SceneReboot { // of one user: it knows one token
		*c.handler = renewals
	}
	f := &faults{next: *c.handler, counts: map[string]int{}}
	*c.handler = f
	var signedIn []*Client
	signIn := func(user, project string) func(*testing.T) recover.Cloud {
		return func(t *testing.T) recover.Cloud {
			t.Helper()
			client := c.open(t, c.Vars[user], c.Vars[project], opts)
			if scene == recovertest.ScenePages {
				client.minor = minorDownCell - 1 // the list for cells that are down would have them all
			}
			signedIn = append(signedIn, client)
			return client
		}
	}
	v := c.Vars
	s := recovertest.CloudScene{
		Admin: signIn("admin", "admin-project"), Member: signIn("member", "project-name"),
		Project: v["project"], ProjectName: v["project-name"], Twin: v["twin"], TwinDomain: v["domain"], TwinDomainName: v["domain-name"],
		AdminProject: v["admin-project-id"], AdminProjectName: v["admin-project"], Host: v["host"], LostHost: "compute2",
		Instances: map[string]string{},
		Wait:      func() {},
		Fail: func(n int) {
			f.first(n, status(http.StatusServiceUnavailable))
			if n < 0 {
				for _, client := range signedIn {
					client.opts.RetryFor = 20 * time.Millisecond
				}
			}
		},
		Actions: func() int { return f.count("POST action") },
		Expire:  renewals.expireNow,
		Revoke:  func() { *c.handler = http.HandlerFunc(status(http.StatusUnauthorized)) },
	}
	for _, name := range []string{"web1", "web2", "web3", "web4", "big"} {
		s.Instances[name] = v[name]
	}
	return s
}

// recordingOf names the recording of a scene.
func recordingOf(t *testing.T, scene recovertest.Scene) string {
	t.Helper()
	name, ok := map[recovertest.Scene]string{
		recovertest.SceneSignIn:          "sign-in",
		recovertest.SceneProjects:        "projects",
		recovertest.SceneMembersProjects: "projects-member",
		recovertest.ScenePages:           "list-pages",
		recovertest.SceneList:            "list-filters",
		recovertest.SceneCellDown:        "cell-down",
		recovertest.SceneRecord:          "records",
		recovertest.SceneNobody:          "no-instance",
		recovertest.SceneMember:          "member",
		recovertest.SceneLock:            "lock",
		recovertest.SceneOwnersLock:      "owner-lock",
		recovertest.SceneTasks:           "conflicts",
		recovertest.SceneServices:        "services",
		recovertest.SceneReboot:          "application-credential",
	}[scene]
	if !ok {
		t.Fatalf("no recording of the scene %s", scene)
	}
	return name
}

// deletedCloud is put together from recordings: to the list of deleted instances Nova
// answers with web1's record, whose status and vm_state it then gives as deleted
// (nova/api/openstack/compute/views/servers.py), with no other, and a member with what it
// says to every list of all projects.
func deletedCloud(t *testing.T) *cloud {
	t.Helper()
	users, lists, members := readRecording(t, "services"), readRecording(t, "list-filters"), readRecording(t, "member")
	replay := &replayer{t: t, answers: map[string][]exchange{}}
	for _, e := range users.Exchanges {
		replay.answers[e.key()] = append(replay.answers[e.key()], e)
	}
	list := func(r recording, query string) exchange {
		t.Helper()
		n := slices.IndexFunc(r.Exchanges, func(e exchange) bool { return strings.HasSuffix(e.Path, "/servers/detail?"+query) })
		if n < 0 {
			t.Fatalf("no list of %s was recorded", query)
		}
		return r.Exchanges[n]
	}
	add := func(e exchange, token, uuid string) {
		e.Token, e.Path = token, "/compute/v2.1/servers/detail?all_tenants=1&deleted=True&uuid="+uuid
		replay.answers[e.key()] = []exchange{e}
	}
	all := list(lists, "all_tenants=1")
	var body struct {
		Servers []map[string]any `json:"servers"`
	}
	if err := json.Unmarshal(all.Body, &body); err != nil {
		t.Fatal(err)
	}
	body.Servers = slices.DeleteFunc(body.Servers, func(s map[string]any) bool { return s["id"] != lists.Vars["web1"] })
	if len(body.Servers) != 1 {
		t.Fatalf("%d records of web1", len(body.Servers))
	}
	body.Servers[0]["status"], body.Servers[0]["OS-EXT-STS:vm_state"] = "DELETED", "deleted"
	var err error
	if all.Body, err = json.Marshal(body); err != nil {
		t.Fatal(err)
	}
	add(all, "token-1", users.Vars["web1"])
	add(list(lists, "all_tenants=1&host=elsewhere"), "token-1", users.Vars["web2"])
	add(list(members, "all_tenants=1&project_id="+members.Vars["project"]), "token-2", users.Vars["web1"])
	return serve(t, replay, users.Vars)
}

func readRecording(t *testing.T, name string) recording {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}
