package recover

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// planOnline is the plan of a rescue with Nova, which changes nothing there.
func planOnline(t *testing.T, h *host, o Options) (Plan, error) {
	t.Helper()
	plan, err := h.engine().DryRun(t.Context(), CommandRescue, o)
	for _, method := range []string{"Lock", "Unlock", "HardReboot", "Pause"} {
		if n := h.cloud.called(method, ""); n > 0 {
			t.Errorf("a plan made %d calls of %s", n, method)
		}
	}
	return plan, err
}

func planOf1(t *testing.T, plan Plan, uuid string) InstancePlan {
	t.Helper()
	n := slices.IndexFunc(plan.Instances, func(i InstancePlan) bool { return i.UUID == uuid })
	if n < 0 {
		t.Fatalf("it is not in the plan: %+v", plan)
	}
	return plan.Instances[n]
}

func TestWhereNovaAndLibvirtDisagreeAnInstanceIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*host, *testGuest)
		says   string // in the refusal; empty when there is none
	}{
		"they agree":                  {func(*host, *testGuest) {}, ""},
		"it was evacuated":            {func(h *host, g *testGuest) { h.cloud.servers[g.uuid].Host = "other" }, "evacuated or migrated"},
		"no host has it":              {func(h *host, g *testGuest) { h.cloud.servers[g.uuid].Host = "" }, "on no host"},
		"its domain has another name": {func(h *host, g *testGuest) { h.cloud.servers[g.uuid].Domain = "instance-0000ffff" }, "calls its domain instance-0000ffff"},
		"its cell is down":            {func(h *host, _ *testGuest) { h.cloud.down = true }, "its cell does not answer"},
		"Nova knows it no more":       {func(h *host, g *testGuest) { delete(h.cloud.servers, g.uuid) }, "Nova knows no such instance"},
		"Nova can't say anything of it": {func(h *host, _ *testGuest) {
			h.cloud.once["Servers"] = []error{nil}
			h.cloud.down = false
			h.cloud.errs["Server"] = ErrCloudUnavailable
		}, "named only"},
		"it is migrating": {func(h *host, g *testGuest) { h.cloud.servers[g.uuid].TaskState = "migrating" }, "a task under way on it (migrating)"},
	} {
		for _, selection := range []Selection{{All: true}, {Project: "project"}, {Instances: []string{testUUID(1)}}} {
			t.Run(fmt.Sprintf("%s %+v", name, selection), func(t *testing.T) {
				h := newHost(t)
				g := h.add(1, guestOptions{})
				h.online()
				h.purge()
				c.change(h, g)
				says := c.says
				if says == "named only" {
					if says = ""; len(selection.Instances) > 0 {
						says = "Nova does not say whose it is now"
					}
				}
				plan, err := planOnline(t, h, Options{Selection: selection})
				must(t, err)
				if len(plan.Elsewhere) > 0 {
					t.Errorf("what is here is elsewhere: %+v", plan.Elsewhere)
				}
				ip := planOf1(t, plan, g.uuid)
				if says == "" && ip.Action != ActionReboot || says != "" && (ip.Action != ActionRefuse || !strings.Contains(ip.Refusal, says)) {
					t.Errorf("%s: %q, not %q", ip.Action, ip.Refusal, says)
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
	plan, err := planOnline(t, h, Options{Selection: Selection{All: true}})
	must(t, err)
	if ip := planOf1(t, plan, g.uuid); ip.Action != ActionNone || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], "host other") {
		t.Errorf("%+v, %v", ip, plan.Warnings)
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
	plan, err := planOnline(t, h, Options{Selection: Selection{Project: "p1"}})
	must(t, err)
	if len(plan.Instances) != 1 || len(plan.Elsewhere) != 1 || plan.Elsewhere[0] != (Elsewhere{UUID: far.UUID, Name: "far", Host: "other", Status: "ACTIVE"}) {
		t.Errorf("%+v, elsewhere %+v", plan.Instances, plan.Elsewhere)
	}
	plan, err = planOnline(t, h, Options{Selection: Selection{Instances: []string{far.UUID}}})
	must(t, err)
	if ip := planOf1(t, plan, far.UUID); ip.Action != ActionRefuse || !strings.Contains(ip.Refusal, "run os-rescue there") {
		t.Errorf("%+v", ip)
	}
	h.cloud.down = true
	plan, err = planOnline(t, h, Options{Selection: Selection{Instances: []string{far.UUID}}})
	must(t, err)
	if ip := planOf1(t, plan, far.UUID); ip.Action != ActionRefuse || !strings.Contains(ip.Refusal, "cell does not answer") {
		t.Errorf("%+v", ip)
	}
}

// What is meant to be done on another host is not done here.
func TestHostOfAnotherNameMeansNothingHere(t *testing.T) {
	for _, selection := range []Selection{{All: true, Host: "other"}, {Project: "project", Host: "other"}, {Instances: []string{testUUID(1)}, Host: "other"}} {
		t.Run(fmt.Sprintf("%+v", selection), func(t *testing.T) {
			h := newHost(t)
			h.add(1, guestOptions{})
			h.online()
			h.purge()
			plan, err := planOnline(t, h, Options{Selection: selection})
			if err != nil && !errors.Is(err, ErrNothingSelected) {
				t.Error(err)
			}
			if len(plan.Work()) > 0 {
				t.Errorf("it would work on %+v", plan.Work())
			}
		})
	}
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.online()
	h.purge()
	for _, selection := range []Selection{{All: true, Host: "node"}, {Project: "project", Host: "node"}, {Instances: []string{g.uuid}, Host: "node"}} {
		plan, err := planOnline(t, h, Options{Selection: selection})
		must(t, err)
		if len(plan.Work()) != 1 {
			t.Errorf("%+v: %+v", selection, plan)
		}
	}
}

func TestProjectsByNovaAndByTheMetadata(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	o := h.add(2, guestOptions{})
	h.hv.domains[o.uuid].Nova.ProjectID, h.hv.domains[o.uuid].Nova.ProjectName = "p2", "another"
	cloud := h.online()
	cloud.projects = append(cloud.projects, fakeProject{"p2", "another", "default"}, fakeProject{"p3", "twice", "a"}, fakeProject{"p4", "twice", "b"})
	h.purge()
	chosen := func(s Selection) ([]string, error) {
		plan, err := planOnline(t, h, Options{Selection: s})
		var list []string
		for _, i := range plan.Work() {
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
	plan, err := planOnline(t, h, Options{Selection: Selection{Instances: []string{g.uuid, strings.ToUpper(g.uuid), "instance-00000001"}}})
	must(t, err)
	if len(plan.Instances) != 1 {
		t.Errorf("named three times: %+v", plan.Instances)
	}
	delete(h.cloud.servers, g.uuid)
	plan, err = planOnline(t, h, Options{Selection: Selection{Instances: []string{g.uuid, g.uuid}}})
	must(t, err)
	if len(plan.Instances) != 1 {
		t.Errorf("named twice, and deleted: %+v", plan.Instances)
	}
}

func TestAnActiveInstanceWithNoDomainIsLost(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.online()
	h.hv.forget(g.uuid)
	h.purge()
	plan, err := planOnline(t, h, Options{Selection: Selection{All: true}})
	must(t, err)
	if ip := planOf1(t, plan, g.uuid); ip.Action != ActionRefuse || ip.Verdict != VerdictLost || !strings.Contains(ip.Refusal, "libvirt knows no such domain") || !strings.Contains(ip.Refusal, "--holder") {
		t.Errorf("%+v", ip)
	}
	h.cloud.servers[g.uuid].TaskState = "spawning"
	plan, err = planOnline(t, h, Options{Selection: Selection{All: true}})
	must(t, err)
	if ip := planOf1(t, plan, g.uuid); ip.Action != ActionRefuse || !strings.Contains(ip.Refusal, "spawning") {
		t.Errorf("%+v", ip)
	}
}
