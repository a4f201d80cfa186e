package nova

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/os-rescue/os-rescue/recover"
)

// mention fails unless the error is kind and its text has all words.
func mention(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want %v", err, kind)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	for _, secret := range []string{scrubbed, "token-1", "token-2"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error gives a secret away: %v", err)
		}
	}
}

// sweep returns the instance in a state, waiting for it on the bed.
func sweep(t *testing.T, c *Client, uuid, vmState string) recover.Server {
	t.Helper()
	for range 400 {
		s, err := c.Server(t.Context(), uuid)
		if err != nil {
			t.Fatal(err)
		}
		if s.VMState == vmState && s.TaskState == "" {
			return s
		}
		if bed == nil {
			continue
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Fatalf("%s did not become %s", uuid, vmState)
	return recover.Server{}
}

func TestATokenOfAProjectKnowsItsProjectAndTheMicroversionIsAgreedOn(t *testing.T) {
	cloud := openCloud(t, "sign-in")
	c := cloud.admin(t)
	if c.OwnProject() != cloud.Vars["admin-project-id"] {
		t.Errorf("OwnProject %q, want %q", c.OwnProject(), cloud.Vars["admin-project-id"])
	}
	if c.compute.Microversion != "2.73" {
		t.Errorf("microversion %s, want 2.73", c.compute.Microversion)
	}
	if !c.Admin() {
		t.Error("the admin was not seen to be one")
	}
	if c.Calls() != 2 {
		t.Errorf("%d calls, want 2: a token and the version document", c.Calls())
	}
	if m := cloud.member(t); m.Admin() || m.OwnProject() != cloud.Vars["project"] {
		t.Errorf("the member: admin %v, project %q", m.Admin(), m.OwnProject())
	}
}

func TestWhatKeystoneDoesNotAcceptIsNamedWithoutThePassword(t *testing.T) {
	cloud := openCloud(t, "refused")
	cloud.use(t, cloud.Vars["member"], cloud.Vars["project-name"])
	t.Setenv("OS_PASSWORD", "hunter2")
	_, err := Open(t.Context(), quick())
	mention(t, err, recover.ErrCredentials, cloud.URL, cloud.Vars["member"])
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error gives the password away: %v", err)
	}

	cloud.use(t, cloud.Vars["member"], "no-such-project")
	_, err = Open(t.Context(), quick())
	mention(t, err, recover.ErrCredentials, cloud.URL, cloud.Vars["member"], "no-such-project")

	cloud.use(t, cloud.Vars["member"], cloud.Vars["project-name"])
	t.Setenv("OS_REGION_NAME", "Atlantis")
	_, err = Open(t.Context(), quick())
	mention(t, err, recover.ErrCredentials, "Atlantis", "RegionOne")
}

func TestAProjectIsFoundByIDThenByNameThenInItsDomain(t *testing.T) {
	cloud := openCloud(t, "projects")
	v := cloud.Vars
	c := cloud.admin(t)
	for _, tt := range []struct {
		name, domain, id string
		err              error
		words            []string
	}{
		{name: v["project"], id: v["project"]},
		{name: v["admin-project"], id: v["admin-project-id"]},
		{name: v["project-name"], err: recover.ErrAmbiguous, words: []string{v["project"], v["twin"], "default", v["domain"]}},
		{name: v["project-name"], domain: "default", id: v["project"]},
		{name: v["project-name"], domain: v["domain"], id: v["twin"]},
		{name: v["project-name"], domain: v["domain-name"], id: v["twin"]},
		{name: v["project-name"], domain: "no-such-domain", err: recover.ErrNoProject, words: []string{"no-such-domain"}},
		{name: "no-such-project", err: recover.ErrNoProject, words: []string{"no-such-project"}},
		{name: "", err: recover.ErrNoProject},
		{name: "a/b?c=d#e", err: recover.ErrNoProject},
	} {
		id, err := c.Project(t.Context(), tt.name, tt.domain)
		if id != tt.id || tt.err == nil && err != nil {
			t.Errorf("Project(%q, %q) = %q, %v, want %q", tt.name, tt.domain, id, err, tt.id)
		}
		if tt.err != nil {
			mention(t, err, tt.err, tt.words...)
		}
	}
}

func TestAProjectsNameIsTakenExactly(t *testing.T) {
	cloud := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !r.URL.Query().Has("name") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"projects": [{"id": "1", "name": "Demo", "domain_id": "default"}]}`) // as on MySQL
	}), nil)
	opts := quick()
	opts.setDefaults()
	provider := &gophercloud.ProviderClient{}
	identity := &gophercloud.ServiceClient{ProviderClient: provider, Endpoint: cloud.URL + "/v3/"}
	c := newClient(&session{opts: opts, provider: provider, identity: identity})
	if id, err := c.Project(t.Context(), "Demo", ""); id != "1" || err != nil {
		t.Errorf("Demo: %q, %v", id, err)
	}
	_, err := c.Project(t.Context(), "demo", "")
	mention(t, err, recover.ErrNoProject)
}

func TestAMemberMayGetTheOwnProjectAndIsToldWhatLookingOthersUpNeeds(t *testing.T) {
	cloud := openCloud(t, "projects-member")
	c := cloud.member(t)
	if id, err := c.Project(t.Context(), cloud.Vars["project"], ""); id != cloud.Vars["project"] {
		t.Errorf("Project(own ID) = %q, %v", id, err)
	}
	for _, name := range []string{cloud.Vars["admin-project"], cloud.Vars["twin"]} {
		_, err := c.Project(t.Context(), name, "")
		mention(t, err, recover.ErrForbidden, "identity:list_projects", "identity:get_project", "admin")
	}
}

func TestComputeServiceSaysUpUnknownAndForbidden(t *testing.T) {
	cloud := openCloud(t, "services")
	c := cloud.admin(t)
	s, err := c.ComputeService(t.Context(), cloud.Vars["host"])
	if err != nil || !s.Known || !s.Up || s.Disabled || s.UpdatedAt.IsZero() {
		t.Errorf("nova-compute of the host: %+v, %v", s, err)
	}
	if s, err = c.ComputeService(t.Context(), "elsewhere"); err != nil || s.Known {
		t.Errorf("nova-compute of no host: %+v, %v", s, err)
	}
	_, err = cloud.member(t).ComputeService(t.Context(), cloud.Vars["host"])
	mention(t, err, recover.ErrForbidden, "os_compute_api:os-services:list", "role admin")
}

func TestACancelledContextEndsAWaitAtOnce(t *testing.T) {
	cloud := openCloud(t, "sign-in")
	cloud.use(t, cloud.Vars["admin"], cloud.Vars["admin-project"])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, quick()); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v, want the context's error", err)
	}
}
