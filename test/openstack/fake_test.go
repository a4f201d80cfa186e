package openstack

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func TestEachFakeComputeIsAHostOfItsOwnThatStartsAndStopsWithTheBed(t *testing.T) {
	b := Open(Options{Dir: t.TempDir(), FakeComputes: 2})
	var steps []string
	for _, s := range stepsOf(b) {
		steps = append(steps, s.name)
		if s.name == "fake hypervisors" && !slices.Contains(s.after, "nova-compute-fake-2") {
			t.Errorf("the fake hypervisors are waited for after %v", s.after)
		}
	}
	for n, name := range []string{"nova-compute-fake-1", "nova-compute-fake-2"} {
		if !slices.Contains(b.Services(), name) || !slices.Contains(steps, name) {
			t.Errorf("%s is not among the services %v and the steps %v", name, b.Services(), steps)
		}
		conf := string(fakeCompute(n + 1))
		if !strings.Contains(conf, "host = "+FakeHost(n+1)+"\n") || !strings.Contains(conf, "compute_driver = fake.FakeDriver\n") {
			t.Errorf("the configuration of %s is\n%s", name, conf)
		}
		command := strings.Join(b.service(name).command, " ")
		if !strings.HasSuffix(command, fakeConf(b.dir, n+1)) || !strings.Contains(command, "/nova.conf ") {
			t.Errorf("%s is started by %s", name, command)
		}
	}
	names := Open(Options{Dir: t.TempDir()}).Services()
	if slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "fake") }) {
		t.Errorf("a bed without fake computes has %v", names)
	}
}

func TestEveryStepOfABedWithFakesCanBeReached(t *testing.T) {
	steps := stepsOf(Open(Options{Dir: t.TempDir(), FakeComputes: 3}))
	for i := range steps {
		steps[i].run = func(context.Context) error { return nil }
	}
	if err := runSteps(t.Context(), steps, func(string) {}); err != nil {
		t.Error(err)
	}
}
