package selection_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestWhereNovaAndLibvirtDisagreeAnInstanceIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*runtest.Host, *recovertest.Guest)
		says   string // in the refusal; empty when there is none
		notes  string // in the warnings; empty when there is none
	}{
		"they agree": {change: func(*runtest.Host, *recovertest.Guest) {}},
		"it was evacuated": {
			change: func(h *runtest.Host, g *recovertest.Guest) { h.Cloud.Instances[g.UUID].Host = "other" },
			says:   "evacuated or migrated",
		},
		"no host has it": {change: func(h *runtest.Host, g *recovertest.Guest) { h.Cloud.Instances[g.UUID].Host = "" }, says: "on no host"},
		"its domain has another name": { // instance_name_template is another one by now
			change: func(h *runtest.Host, g *recovertest.Guest) { h.Cloud.Instances[g.UUID].Domain = "instance-0000ffff" },
			notes:  "Nova calls the domain of " + recovertest.UUID(1) + " instance-0000ffff",
		},
		"its domain has another name, and it was evacuated": {
			change: func(h *runtest.Host, g *recovertest.Guest) {
				h.Cloud.Instances[g.UUID].Domain, h.Cloud.Instances[g.UUID].Host = "instance-0000ffff", "other"
			},
			says: "evacuated or migrated",
		},
		"its cell is down": {
			change: func(h *runtest.Host, _ *recovertest.Guest) { h.Cloud.Down = true },
			says:   "its cell does not answer",
		},
		"Nova knows it no more": {
			change: func(h *runtest.Host, g *recovertest.Guest) { delete(h.Cloud.Instances, g.UUID) },
			says:   "Nova knows no such instance",
		},
		"Nova can't say anything of it": {change: func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Once["Servers"] = []error{nil}
			h.Cloud.Down = false
			h.Cloud.Errs["Server"] = recover.ErrCloudUnavailable
		}, says: "named only"},
		"it is migrating": {
			change: func(h *runtest.Host, g *recovertest.Guest) { h.Cloud.Instances[g.UUID].TaskState = "migrating" },
			says:   "a task under way on it (migrating)",
		},
	} {
		for _, chosen := range []recover.Selection{{All: true}, {Project: "project"}, {Instances: []string{recovertest.UUID(1)}}} {
			t.Run(fmt.Sprintf("%s %+v", name, chosen), func(t *testing.T) {
				h := runtest.NewHost(t)
				g := h.Add(1, recovertest.GuestOptions{})
				h.Online()
				h.Purge()
				c.change(h, g)
				says := c.says
				if says == "named only" {
					if says = ""; len(chosen.Instances) > 0 {
						says = "Nova does not say on which host it is now"
					}
				}
				whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: chosen})
				recovertest.Must(t, err)
				if len(whole.Elsewhere) > 0 {
					t.Errorf("what is here is elsewhere: %+v", whole.Elsewhere)
				}
				todo := runtest.PlanOf(t, whole, g.UUID)
				want := recover.ActionRefuse
				if says == "" {
					want = recover.ActionReboot
				}
				if todo.Action != want || !strings.Contains(todo.Refusal, says) {
					t.Errorf("%s: %q, not %q", todo.Action, todo.Refusal, says)
				}
				if noted := strings.Join(whole.Warnings, "\n"); !strings.Contains(noted, c.notes) || c.notes == "" && noted != "" {
					t.Errorf("warnings: %q, not %q", noted, c.notes)
				}
			})
		}
	}
}

func TestAnIntactInstanceThatNovaHasElsewhereIsOnlyAWarning(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Online()
	h.Cloud.Instances[g.UUID].Host = "other"
	whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{All: true}})
	recovertest.Must(t, err)
	todo := runtest.PlanOf(t, whole, g.UUID)
	if todo.Action != recover.ActionNone || len(whole.Warnings) != 1 || !strings.Contains(whole.Warnings[0], "host other") {
		t.Errorf("%+v, %v", todo, whole.Warnings)
	}
}

func TestInstancesOfOtherHostsAreListedAndThoseNamedRefused(t *testing.T) {
	h := runtest.NewHost(t)
	h.Add(1, recovertest.GuestOptions{})
	h.Online()
	far := recover.Server{UUID: recovertest.UUID(7), Name: "far", ProjectID: "p1", Host: "other", Domain: "instance-00000007"}
	recovertest.To(&far, recover.VMActive)
	h.Cloud.Instances[far.UUID] = &recovertest.FakeServer{Server: far}
	h.Purge()
	whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{Project: "p1"}})
	recovertest.Must(t, err)
	want := recover.Elsewhere{UUID: far.UUID, Name: "far", Host: "other", Status: "ACTIVE"}
	if len(whole.Instances) != 1 || len(whole.Elsewhere) != 1 || whole.Elsewhere[0] != want {
		t.Errorf("%+v, elsewhere %+v", whole.Instances, whole.Elsewhere)
	}
	whole, err = runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{Instances: []string{far.UUID}}})
	recovertest.Must(t, err)
	todo := runtest.PlanOf(t, whole, far.UUID)
	if todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, "run os-rescue there") {
		t.Errorf("%+v", todo)
	}
	h.Cloud.Down = true
	whole, err = runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{Instances: []string{far.UUID}}})
	recovertest.Must(t, err)
	todo = runtest.PlanOf(t, whole, far.UUID)
	if todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, "cell does not answer") {
		t.Errorf("%+v", todo)
	}
}

// What is meant to be done on another host is not done here.
func TestHostOfAnotherNameMeansNothingHere(t *testing.T) {
	for _, chosen := range []recover.Selection{
		{All: true, Host: "other"},
		{Project: "project", Host: "other"},
		{Instances: []string{recovertest.UUID(1)}, Host: "other"},
	} {
		t.Run(fmt.Sprintf("%+v", chosen), func(t *testing.T) {
			h := runtest.NewHost(t)
			h.Add(1, recovertest.GuestOptions{})
			h.Online()
			h.Purge()
			whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: chosen})
			if err != nil && !errors.Is(err, recover.ErrNothingSelected) {
				t.Error(err)
			}
			if len(whole.Work()) > 0 {
				t.Errorf("it would work on %+v", whole.Work())
			}
		})
	}
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Online()
	h.Purge()
	for _, chosen := range []recover.Selection{
		{All: true, Host: "node"},
		{Project: "project", Host: "node"},
		{Instances: []string{g.UUID}, Host: "node"},
	} {
		whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: chosen})
		recovertest.Must(t, err)
		if len(whole.Work()) != 1 {
			t.Errorf("%+v: %+v", chosen, whole)
		}
	}
}

func TestProjectsByNovaAndByTheMetadata(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	o := h.Add(2, recovertest.GuestOptions{})
	h.HV.ByUUID[o.UUID].Nova.ProjectID, h.HV.ByUUID[o.UUID].Nova.ProjectName = "p2", "another"
	cloud := h.Online()
	cloud.Projects = append(cloud.Projects,
		recovertest.FakeProject{ID: "p2", Name: "another", Domain: "default"},
		recovertest.FakeProject{ID: "p3", Name: "twice", Domain: "a"},
		recovertest.FakeProject{ID: "p4", Name: "twice", Domain: "b"})
	h.Purge()
	chosen := func(s recover.Selection) ([]string, error) {
		whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: s})
		var list []string
		for _, i := range whole.Work() {
			list = append(list, i.UUID)
		}
		return list, err
	}
	for name, c := range map[string]struct {
		selection recover.Selection
		forbidden bool
		want      []string
		err       error
	}{
		"name":                           {recover.Selection{Project: "project"}, false, []string{g.UUID}, nil},
		"ID":                             {recover.Selection{Project: "p2"}, false, []string{o.UUID}, nil},
		"name that is not there":         {recover.Selection{Project: "nobody"}, false, nil, recover.ErrNoProject},
		"name of two":                    {recover.Selection{Project: "twice"}, false, nil, recover.ErrAmbiguous},
		"name of two, in its domain":     {recover.Selection{Project: "twice", ProjectDomain: "b"}, false, nil, recover.ErrNothingSelected},
		"forbidden, known by metadata":   {recover.Selection{Project: "another"}, true, []string{o.UUID}, nil},
		"forbidden, unknown by metadata": {recover.Selection{Project: "nobody"}, true, nil, recover.ErrForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			delete(cloud.Errs, "Project")
			if c.forbidden {
				cloud.Errs["Project"] = recover.ErrForbidden
			}
			list, err := chosen(c.selection)
			if !errors.Is(err, c.err) || !slices.Equal(list, c.want) {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
	// Metadata without an ID must not list everybody's.
	h.HV.ByUUID[o.UUID].Nova.ProjectID = ""
	cloud.Errs["Project"] = recover.ErrForbidden
	if list, err := chosen(recover.Selection{Project: "another"}); !errors.Is(err, recover.ErrForbidden) || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestATypingErrorInAnInstanceStopsTheRun(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Online()
	h.Purge()
	_, err := runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{Instances: []string{g.UUID, recovertest.UUID(66)}}})
	if !errors.Is(err, recover.ErrNothingSelected) || !strings.Contains(err.Error(), recovertest.UUID(66)) {
		t.Error(err)
	}
	names := []string{g.UUID, strings.ToUpper(g.UUID), "instance-00000001"}
	whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{Instances: names}})
	recovertest.Must(t, err)
	if len(whole.Instances) != 1 {
		t.Errorf("named three times: %+v", whole.Instances)
	}
	delete(h.Cloud.Instances, g.UUID)
	whole, err = runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{Instances: []string{g.UUID, g.UUID}}})
	recovertest.Must(t, err)
	if len(whole.Instances) != 1 {
		t.Errorf("named twice, and deleted: %+v", whole.Instances)
	}
}

func TestAnActiveInstanceWithNoDomainIsLost(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Online()
	h.HV.Forget(g.UUID)
	h.Purge()
	whole, err := runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{All: true}})
	recovertest.Must(t, err)
	todo := runtest.PlanOf(t, whole, g.UUID)
	says := func(s string) bool { return strings.Contains(todo.Refusal, s) }
	if todo.Action != recover.ActionRefuse || todo.Verdict != recover.VerdictLost ||
		!says("libvirt does not know its domain") || !says("--holder") {
		t.Errorf("%+v", todo)
	}
	h.Cloud.Instances[g.UUID].TaskState = "spawning"
	whole, err = runtest.PlanOnline(t, h, recover.Options{Selection: recover.Selection{All: true}})
	recovertest.Must(t, err)
	if todo := runtest.PlanOf(t, whole, g.UUID); todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, "spawning") {
		t.Errorf("%+v", todo)
	}
}
