package recover

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestWhatNovasStateForbidsIsRefusedBeforeTheFirstPause(t *testing.T) {
	state := func(vm string) func(*host, *testGuest, *Options) {
		return func(h *host, g *testGuest, _ *Options) { h.cloud.servers[g.uuid].to(vm) }
	}
	base := func(do func(*host, *testGuest, *Options)) func(*host, *testGuest, *Options) {
		return func(h *host, g *testGuest, o *Options) { o.AcceptShared = true; do(h, g, o) }
	}
	for name, c := range map[string]struct {
		change func(*host, *testGuest, *Options)
		says   string // empty: it is not refused
	}{
		"active":             {change: state(VMActive)},
		"error":              {change: state(VMError)},
		"stopped":            {change: state(VMStopped)},
		"rescued":            {change: state(VMRescued), says: "rescue mode"},
		"resized":            {change: state(VMResized), says: "resize confirm"},
		"shelved":            {change: state(VMShelved), says: "shelved"},
		"a state of its own": {change: state("building"), says: "building"},
		"a task": {
			change: func(h *host, g *testGuest, _ *Options) { h.cloud.servers[g.uuid].TaskState = "image_snapshot" },
			says:   "image_snapshot",
		},
		"its owner reboots it": {
			change: func(h *host, g *testGuest, _ *Options) { h.cloud.servers[g.uuid].TaskState = "rebooting" },
			says:   "task under way",
		},
		"a token of its project": {change: func(h *host, _ *testGuest, _ *Options) { h.cloud.own = "p1" }, says: "the instance's own project"},
		"losses": {
			change: func(h *host, g *testGuest, _ *Options) { h.hv.domains[g.uuid].Losses = []string{LossNVRAM, LossVTPM} },
			says:   "--accept-loss nvram,vtpm",
		},
		"losses, one of them accepted": {change: func(h *host, g *testGuest, o *Options) {
			h.hv.domains[g.uuid].Losses = []string{LossNVRAM, LossVTPM}
			o.AcceptLoss = []string{LossNVRAM}
		}, says: "--accept-loss vtpm"},
		"losses, all accepted": {change: func(h *host, g *testGuest, o *Options) {
			h.hv.domains[g.uuid].Losses = []string{LossNVRAM}
			o.AcceptLoss = []string{LossNVRAM}
		}},
		"losses, and no reboot": {change: func(h *host, g *testGuest, o *Options) {
			h.hv.domains[g.uuid].Losses = []string{LossNVRAM}
			o.NoReboot = true
		}},
		"nova-compute down": {
			change: func(h *host, _ *testGuest, _ *Options) { h.cloud.services["node"] = ComputeService{Known: true} },
			says:   "nova-compute is down on node",
		},
		"nova-compute down, and no reboot": {change: func(h *host, _ *testGuest, o *Options) {
			h.cloud.services["node"] = ComputeService{Known: true}
			o.NoReboot = true
		}},
		"nova-compute unknown": {change: func(h *host, _ *testGuest, _ *Options) { delete(h.cloud.services, "node") }, says: "knows no nova-compute"},
		"services forbidden":   {change: func(h *host, _ *testGuest, _ *Options) { h.cloud.errs["ComputeService"] = ErrForbidden }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{})
			h.online()
			h.purge()
			o := options(g)
			base(c.change)(h, g, &o)
			whole, err := planOnline(t, h, o)
			must(t, err)
			todo := planOf1(t, whole, g.uuid)
			want := ActionRefuse
			if c.says == "" {
				want = ActionReboot
			}
			if todo.Action != want || !strings.Contains(todo.Refusal, c.says) {
				t.Errorf("%s: %q", todo.Action, todo.Refusal)
			}
			if name == "services forbidden" && len(whole.Warnings) != 1 {
				t.Errorf("warnings: %v", whole.Warnings)
			}
		})
	}
	t.Run("an API that breaks stops the plan", func(t *testing.T) {
		h := newHost(t)
		g := h.add(1, guestOptions{})
		h.online()
		h.purge()
		h.cloud.errs["ComputeService"] = ErrCloudUnavailable
		if _, err := planOnline(t, h, options(g)); !errors.Is(err, ErrCloudUnavailable) {
			t.Error(err)
		}
	})
}

// Only what a hard reboot needs is asked for: nothing of it when there is none.
func TestWhatIsPutBackWhileTheGuestRunsNeedsNoRebootableState(t *testing.T) {
	for _, vm := range []string{VMRescued, VMResized, VMActive} {
		h := newHost(t)
		g := h.add(1, guestOptions{base: "b"})
		h.online()
		h.cloud.servers[g.uuid].to(vm)
		delete(h.cloud.services, "node")
		must(t, os.Remove(g.base))
		report, err := h.run(t.Context(), CommandRescue, options(g))
		must(t, err)
		if r := g.report(report); r.Outcome != OutcomeRescued {
			t.Errorf("%s: %+v", vm, r)
		}
		if err := h.cloud.in(g.uuid, vm, false, 0); err != nil {
			t.Error(err)
		}
		if h.cloud.called("Lock", g.uuid) != 1 {
			t.Errorf("%s: it was not locked meanwhile", vm)
		}
	}
}
