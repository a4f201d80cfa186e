package hypervisor

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// small is a domain without a disk, the n-th.
func small(n int) guest {
	return guest{name: fmt.Sprintf("small-%d", n), uuid: fmt.Sprintf("5f1f33a4-8c0e-4a3b-9a8e-0000000000%02d", n)}
}

func (g guest) smallXML() string {
	return fmt.Sprintf(`<domain type='qemu'><name>%s</name><uuid>%s</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>`, g.name, g.uuid)
}

func TestAllDomainsAreSeenAsEachAloneInFewerCalls(t *testing.T) {
	startLibvirt(t)
	counted := map[string]int{}
	var mu sync.Mutex
	c, ctx := open(t, func(call string) {
		mu.Lock()
		defer mu.Unlock()
		counted[call]++
	})
	want := map[string]struct {
		state      recover.DomainState
		persistent bool
		losses     []string
	}{}
	for n, how := range [][]string{{}, {"start"}, {"start", "suspend"}, {"start", "managedsave"}, {"create"}, {"start", "undefine"}} {
		g := small(n + 1)
		file := writeXML(t, g.smallXML())
		is := want[g.uuid]
		is.state, is.persistent = recover.StateShutOff, true
		if !slices.Contains(how, "create") {
			virsh(t, "define", file)
		}
		for _, verb := range how {
			what := g.name
			switch verb {
			case "create":
				what, is.state, is.persistent = file, recover.StateRunning, false
			case "start":
				is.state = recover.StateRunning
			case "suspend":
				is.state = recover.StatePaused
			case "managedsave":
				is.state, is.losses = recover.StateShutOff, []string{recover.LossSavedMemory}
			case "undefine":
				is.persistent = false
			}
			virsh(t, verb, what)
		}
		want[g.uuid] = is
	}

	clear(counted)
	all, err := c.Domains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for call, n := range counted {
		got[call] = n
	}
	if diff := cmp.Diff(map[string]int{
		"virConnectListAllDomains": 3, "virConnectGetAllDomainStats": 1,
		"virDomainGetXMLDesc": 8, "virDomainGetJobStats": 4, "virDomainManagedSaveGetXMLDesc": 1,
	}, got); diff != "" {
		t.Errorf("the calls (-want +got):\n%s", diff)
	}
	if len(all) != len(want) {
		t.Errorf("%d domains, want %d", len(all), len(want))
	}
	for _, d := range all {
		is := want[d.UUID]
		if d.State != is.state || d.Persistent != is.persistent || !slices.Equal(d.Losses, is.losses) {
			t.Errorf("%s is %s, persistent %v, would lose %v; want %+v", d.Name, d.State, d.Persistent, d.Losses, is)
		}
		alone, err := c.Domain(ctx, d.UUID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(alone, d); diff != "" {
			t.Errorf("%s alone and among all (-alone +all):\n%s", d.Name, diff)
		}
	}
}

func TestADomainThatStartsOrEndsDuringTheLookIsReadAgain(t *testing.T) {
	startLibvirt(t)
	g := small(1)
	virsh(t, "define", writeXML(t, g.smallXML()))
	for _, c := range []struct {
		verb string
		want recover.DomainState
	}{{"start", recover.StateRunning}, {"destroy", recover.StateShutOff}} {
		done := false
		client, ctx := open(t, func(call string) {
			if call == "virDomainGetXMLDesc" && !done {
				done = true
				virsh(t, c.verb, g.name)
			}
		})
		all, err := client.Domains(ctx)
		if err != nil || len(all) != 1 {
			t.Fatalf("%s during the look: %v, error %v", c.verb, all, err)
		}
		if d := all[0]; d.State != c.want || (d.PID != 0) != (c.want == recover.StateRunning) {
			t.Errorf("after %s during the look it is %s with pid %d", c.verb, d.State, d.PID)
		}
	}
}

func TestAStateThatDoesNotTellWhetherThereIsAQEMUIsAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		stats *libvirt.DomainStatsState
		want  state
		ok    bool
	}{
		"none":      {nil, state{}, false},
		"no state":  {&libvirt.DomainStatsState{ReasonSet: true}, state{}, false},
		"no reason": {&libvirt.DomainStatsState{StateSet: true, State: libvirt.DOMAIN_RUNNING}, state{}, false},
		"unknown":   {statsOf(libvirt.DOMAIN_NOSTATE, 0), state{}, false},
		"crashed":   {statsOf(libvirt.DOMAIN_CRASHED, 0), state{}, false},
		"off":       {statsOf(libvirt.DOMAIN_SHUTOFF, 0), state{state: recover.StateShutOff}, true},
		"running":   {statsOf(libvirt.DOMAIN_RUNNING, 0), state{state: recover.StateRunning, active: true}, true},
		"going off": {statsOf(libvirt.DOMAIN_SHUTDOWN, 0), state{state: recover.StateOther, active: true}, true},
		"paused by a disk error": {
			statsOf(libvirt.DOMAIN_PAUSED, int(libvirt.DOMAIN_PAUSED_IOERROR)),
			state{state: recover.StatePaused, reason: recover.PauseIOError, active: true},
			true,
		},
	} {
		if got, ok := stateOfStats(c.stats); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, ok, c.want, c.ok)
		}
	}
}

// statsOf is libvirt's answer for a domain in that state.
func statsOf(code libvirt.DomainState, reason int) *libvirt.DomainStatsState {
	return &libvirt.DomainStatsState{StateSet: true, State: code, ReasonSet: true, Reason: reason}
}
