package openstack

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestStepsRunWhenWhatTheyNeedIsDone(t *testing.T) {
	var mu sync.Mutex
	var ran []string
	note := func(name string) func(context.Context) error {
		return func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, name)
			return nil
		}
	}
	steps := []step{
		{"instance", []string{"image", "hypervisor"}, note("instance")},
		{"hypervisor", []string{"database"}, note("hypervisor")},
		{"image", []string{"database"}, note("image")},
		{"database", nil, note("database")},
	}
	if err := runSteps(t.Context(), steps, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if len(ran) != 4 || ran[0] != "database" || ran[3] != "instance" {
		t.Errorf("they ran in the order %v", ran)
	}
}

func TestAStepThatFailsEndsTheOthers(t *testing.T) {
	broken := errors.New("broken")
	ran := false
	err := runSteps(t.Context(), []step{
		{"database", nil, func(context.Context) error { return broken }},
		{"forever", nil, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{"image", []string{"database"}, func(context.Context) error { ran = true; return nil }},
	}, func(string) {})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "database") {
		t.Errorf("the error is %v", err)
	}
	if ran {
		t.Error("a step ran whose need had failed")
	}
}

func TestEveryStepOfTheBedCanBeReached(t *testing.T) {
	dir := t.TempDir()
	steps := stepsOf(Open(Options{Dir: dir}))
	for i := range steps {
		steps[i].run = func(context.Context) error { return nil }
	}
	done := map[string]bool{}
	if err := runSteps(t.Context(), steps, func(string) {}); err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		done[s.name] = true
	}
	for _, name := range Open(Options{Dir: dir}).Services() {
		if !done[name] {
			t.Errorf("no step starts %s", name)
		}
	}
}

func TestTheConfigurationNamesOnlyTheBedsOwnPlaces(t *testing.T) {
	files, err := render("/srv/bed")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "{{") || strings.Contains(line, "<no value>") || strings.Contains(line, "0.0.0.0") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
	for _, name := range []string{"keystone.conf", "placement.conf", "glance-api.conf", "neutron.conf", "nova-database.conf"} {
		if !strings.Contains(string(files[name]), "@127.0.0.1:23306/") {
			t.Errorf("%s does not name the bed's database", name)
		}
	}
	if strings.Contains(string(files["nova.conf"]), "mysql") {
		t.Error("nova-compute would be given the databases")
	}
}

func TestTheEnvironmentSignsAUserInToAProject(t *testing.T) {
	env := Open(Options{Dir: t.TempDir()}).Env("demo", "other")
	for _, want := range []string{"OS_USERNAME=demo", "OS_PASSWORD=demo", "OS_PROJECT_NAME=other", "OS_AUTH_URL=http://127.0.0.1:5000/v3"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %v", want, env)
		}
	}
}
