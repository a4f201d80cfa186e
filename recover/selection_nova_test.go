package recover

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWhereNovaAndLibvirtDisagreeAnInstanceIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*host, *testGuest)
		says   string // in the refusal; empty when there is none
	}{
		"they agree": {change: func(*host, *testGuest) {}},
		"it was evacuated": {
			change: func(h *host, g *testGuest) { h.cloud.servers[g.uuid].Host = "other" },
			says:   "evacuated or migrated",
		},
		"no host has it": {change: func(h *host, g *testGuest) { h.cloud.servers[g.uuid].Host = "" }, says: "on no host"},
		"its domain has another name": {
			change: func(h *host, g *testGuest) { h.cloud.servers[g.uuid].Domain = "instance-0000ffff" },
			says:   "calls its domain instance-0000ffff",
		},
		"its cell is down":      {change: func(h *host, _ *testGuest) { h.cloud.down = true }, says: "its cell does not answer"},
		"Nova knows it no more": {change: func(h *host, g *testGuest) { delete(h.cloud.servers, g.uuid) }, says: "Nova knows no such instance"},
		"Nova can't say anything of it": {change: func(h *host, _ *testGuest) {
			h.cloud.once["Servers"] = []error{nil}
			h.cloud.down = false
			h.cloud.errs["Server"] = ErrCloudUnavailable
		}, says: "named only"},
		"it is migrating": {
			change: func(h *host, g *testGuest) { h.cloud.servers[g.uuid].TaskState = "migrating" },
			says:   "a task under way on it (migrating)",
		},
	} {
		for _, chosen := range []Selection{{All: true}, {Project: "project"}, {Instances: []string{testUUID(1)}}} {
			t.Run(fmt.Sprintf("%s %+v", name, chosen), func(t *testing.T) {
				h := newHost(t)
				g := h.add(1, guestOptions{})
				h.online()
				h.purge()
				c.change(h, g)
				says := c.says
				if says == "named only" {
					if says = ""; len(chosen.Instances) > 0 {
						says = "Nova does not say on which host it is now"
					}
				}
				whole, err := planOnline(t, h, Options{Selection: chosen})
				must(t, err)
				if len(whole.Elsewhere) > 0 {
					t.Errorf("what is here is elsewhere: %+v", whole.Elsewhere)
				}
				todo := planOf1(t, whole, g.uuid)
				want := ActionRefuse
				if says == "" {
					want = ActionReboot
				}
				if todo.Action != want || !strings.Contains(todo.Refusal, says) {
					t.Errorf("%s: %q, not %q", todo.Action, todo.Refusal, says)
				}
			})
		}
	}
}

func TestAnIntactInstanceThatNovaHasElsewhereIsOnlyAWarning(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.online()
	h.cloud.servers[g.uuid].Host = "other"
	whole, err := planOnline(t, h, Options{Selection: Selection{All: true}})
	must(t, err)
	todo := planOf1(t, whole, g.uuid)
	if todo.Action != ActionNone || len(whole.Warnings) != 1 || !strings.Contains(whole.Warnings[0], "host other") {
		t.Errorf("%+v, %v", todo, whole.Warnings)
	}
}

func TestInstancesOfOtherHostsAreListedAndThoseNamedRefused(t *testing.T) {
	h := newHost(t)
	h.add(1, guestOptions{})
	h.online()
	far := Server{UUID: testUUID(7), Name: "far", ProjectID: "p1", Host: "other", Domain: "instance-00000007"}
	far.to(VMActive)
	h.cloud.servers[far.UUID] = &fakeServer{Server: far}
	h.purge()
	whole, err := planOnline(t, h, Options{Selection: Selection{Project: "p1"}})
	must(t, err)
	want := Elsewhere{UUID: far.UUID, Name: "far", Host: "other", Status: "ACTIVE"}
	if len(whole.Instances) != 1 || len(whole.Elsewhere) != 1 || whole.Elsewhere[0] != want {
		t.Errorf("%+v, elsewhere %+v", whole.Instances, whole.Elsewhere)
	}
	whole, err = planOnline(t, h, Options{Selection: Selection{Instances: []string{far.UUID}}})
	must(t, err)
	if todo := planOf1(t, whole, far.UUID); todo.Action != ActionRefuse || !strings.Contains(todo.Refusal, "run os-rescue there") {
		t.Errorf("%+v", todo)
	}
	h.cloud.down = true
	whole, err = planOnline(t, h, Options{Selection: Selection{Instances: []string{far.UUID}}})
	must(t, err)
	if todo := planOf1(t, whole, far.UUID); todo.Action != ActionRefuse || !strings.Contains(todo.Refusal, "cell does not answer") {
		t.Errorf("%+v", todo)
	}
}

// What is meant to be done on another host is not done here.
func TestHostOfAnotherNameMeansNothingHere(t *testing.T) {
	for _, chosen := range []Selection{
		{All: true, Host: "other"},
		{Project: "project", Host: "other"},
		{Instances: []string{testUUID(1)}, Host: "other"},
	} {
		t.Run(fmt.Sprintf("%+v", chosen), func(t *testing.T) {
			h := newHost(t)
			h.add(1, guestOptions{})
			h.online()
			h.purge()
			whole, err := planOnline(t, h, Options{Selection: chosen})
			if err != nil && !errors.Is(err, ErrNothingSelected) {
				t.Error(err)
			}
			if len(whole.Work()) > 0 {
				t.Errorf("it would work on %+v", whole.Work())
			}
		})
	}
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.online()
	h.purge()
	for _, chosen := range []Selection{
		{All: true, Host: "node"},
		{Project: "project", Host: "node"},
		{Instances: []string{g.uuid}, Host: "node"},
	} {
		whole, err := planOnline(t, h, Options{Selection: chosen})
		must(t, err)
		if len(whole.Work()) != 1 {
			t.Errorf("%+v: %+v", chosen, whole)
		}
	}
}

func TestProjectsByNovaAndByTheMetadata(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	o := h.add(2, guestOptions{})
	h.hv.domains[o.uuid].Nova.ProjectID, h.hv.domains[o.uuid].Nova.ProjectName = "p2", "another"
	cloud := h.online()
	cloud.projects = append(cloud.projects,
		fakeProject{"p2", "another", "default"},
		fakeProject{"p3", "twice", "a"},
		fakeProject{"p4", "twice", "b"})
	h.purge()
	chosen := func(s Selection) ([]string, error) {
		whole, err := planOnline(t, h, Options{Selection: s})
		var list []string
		for _, i := range whole.Work() {
			list = append(list, i.UUID)
		}
		return list, err
	}
	for name, c := range map[string]struct {
		selection Selection
		forbidden bool
		want      []string
		err       error
	}{
		"name":                           {Selection{Project: "project"}, false, []string{g.uuid}, nil},
		"ID":                             {Selection{Project: "p2"}, false, []string{o.uuid}, nil},
		"name that is not there":         {Selection{Project: "nobody"}, false, nil, ErrNoProject},
		"name of two":                    {Selection{Project: "twice"}, false, nil, ErrAmbiguous},
		"name of two, in its domain":     {Selection{Project: "twice", ProjectDomain: "b"}, false, nil, ErrNothingSelected},
		"forbidden, known by metadata":   {Selection{Project: "another"}, true, []string{o.uuid}, nil},
		"forbidden, unknown by metadata": {Selection{Project: "nobody"}, true, nil, ErrForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			delete(cloud.errs, "Project")
			if c.forbidden {
				cloud.errs["Project"] = ErrForbidden
			}
			list, err := chosen(c.selection)
			if !errors.Is(err, c.err) || !slices.Equal(list, c.want) {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
	// Metadata without an ID must not list everybody's.
	h.hv.domains[o.uuid].Nova.ProjectID = ""
	cloud.errs["Project"] = ErrForbidden
	if list, err := chosen(Selection{Project: "another"}); !errors.Is(err, ErrForbidden) || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestATypingErrorInAnInstanceStopsTheRun(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.online()
	h.purge()
	_, err := planOnline(t, h, Options{Selection: Selection{Instances: []string{g.uuid, testUUID(66)}}})
	if !errors.Is(err, ErrNothingSelected) || !strings.Contains(err.Error(), testUUID(66)) {
		t.Error(err)
	}
	whole, err := planOnline(t, h, Options{Selection: Selection{Instances: []string{g.uuid, strings.ToUpper(g.uuid), "instance-00000001"}}})
	must(t, err)
	if len(whole.Instances) != 1 {
		t.Errorf("named three times: %+v", whole.Instances)
	}
	delete(h.cloud.servers, g.uuid)
	whole, err = planOnline(t, h, Options{Selection: Selection{Instances: []string{g.uuid, g.uuid}}})
	must(t, err)
	if len(whole.Instances) != 1 {
		t.Errorf("named twice, and deleted: %+v", whole.Instances)
	}
}

func TestAnActiveInstanceWithNoDomainIsLost(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.online()
	h.hv.forget(g.uuid)
	h.purge()
	whole, err := planOnline(t, h, Options{Selection: Selection{All: true}})
	must(t, err)
	todo := planOf1(t, whole, g.uuid)
	says := func(s string) bool { return strings.Contains(todo.Refusal, s) }
	if todo.Action != ActionRefuse || todo.Verdict != VerdictLost || !says("libvirt does not know its domain") || !says("--holder") {
		t.Errorf("%+v", todo)
	}
	h.cloud.servers[g.uuid].TaskState = "spawning"
	whole, err = planOnline(t, h, Options{Selection: Selection{All: true}})
	must(t, err)
	if todo := planOf1(t, whole, g.uuid); todo.Action != ActionRefuse || !strings.Contains(todo.Refusal, "spawning") {
		t.Errorf("%+v", todo)
	}
}
