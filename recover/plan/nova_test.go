package plan_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestWhatNovasStateForbidsIsRefusedBeforeTheFirstPause(t *testing.T) {
	state := func(vm string) func(*runtest.Host, *recovertest.Guest, *recover.Options) {
		return func(h *runtest.Host, g *recovertest.Guest, _ *recover.Options) { h.Cloud.Instances[g.UUID].To(vm) }
	}
	base := func(do func(*runtest.Host, *recovertest.Guest, *recover.Options)) func(*runtest.Host, *recovertest.Guest, *recover.Options) {
		return func(h *runtest.Host, g *recovertest.Guest, o *recover.Options) { o.AcceptShared = true; do(h, g, o) }
	}
	for name, c := range map[string]struct {
		change func(*runtest.Host, *recovertest.Guest, *recover.Options)
		says   string // empty: it is not refused
	}{
		"active":             {change: state(recover.VMActive)},
		"error":              {change: state(recover.VMError)},
		"stopped":            {change: state(recover.VMStopped)},
		"rescued":            {change: state(recover.VMRescued), says: "rescue mode"},
		"resized":            {change: state(recover.VMResized), says: "resize confirm"},
		"shelved":            {change: state(recover.VMShelved), says: "shelved"},
		"soft-deleted":       {change: state(recover.VMSoftDeleted), says: "no incident"},
		"a state of its own": {change: state("building"), says: "building"},
		"a task": {
			change: func(h *runtest.Host, g *recovertest.Guest, _ *recover.Options) {
				h.Cloud.Instances[g.UUID].TaskState = "image_snapshot"
			},
			says: "image_snapshot",
		},
		"its owner reboots it": {
			change: func(h *runtest.Host, g *recovertest.Guest, _ *recover.Options) {
				h.Cloud.Instances[g.UUID].TaskState = "rebooting"
			},
			says: "task under way",
		},
		"a token of its project": {
			change: func(h *runtest.Host, _ *recovertest.Guest, _ *recover.Options) { h.Cloud.Own = "p1" },
			says:   "the instance's own project",
		},
		"losses": {
			change: func(h *runtest.Host, g *recovertest.Guest, _ *recover.Options) {
				h.HV.ByUUID[g.UUID].Losses = []string{recover.LossNVRAM, recover.LossVTPM}
			},
			says: "--accept-loss nvram,vtpm",
		},
		"losses, one of them accepted": {change: func(h *runtest.Host, g *recovertest.Guest, o *recover.Options) {
			h.HV.ByUUID[g.UUID].Losses = []string{recover.LossNVRAM, recover.LossVTPM}
			o.AcceptLoss = []string{recover.LossNVRAM}
		}, says: "--accept-loss vtpm"},
		"losses, all accepted": {change: func(h *runtest.Host, g *recovertest.Guest, o *recover.Options) {
			h.HV.ByUUID[g.UUID].Losses = []string{recover.LossNVRAM}
			o.AcceptLoss = []string{recover.LossNVRAM}
		}},
		"losses, and no reboot": {change: func(h *runtest.Host, g *recovertest.Guest, o *recover.Options) {
			h.HV.ByUUID[g.UUID].Losses = []string{recover.LossNVRAM}
			o.NoReboot = true
		}},
		"nova-compute down": {
			change: func(h *runtest.Host, _ *recovertest.Guest, _ *recover.Options) {
				h.Cloud.Services["node"] = recover.ComputeService{Known: true}
			},
			says: "nova-compute is down on node",
		},
		"nova-compute down, and no reboot": {change: func(h *runtest.Host, _ *recovertest.Guest, o *recover.Options) {
			h.Cloud.Services["node"] = recover.ComputeService{Known: true}
			o.NoReboot = true
		}},
		"nova-compute unknown": {
			change: func(h *runtest.Host, _ *recovertest.Guest, _ *recover.Options) { delete(h.Cloud.Services, "node") },
			says:   "knows no nova-compute",
		},
		"services forbidden": {change: func(h *runtest.Host, _ *recovertest.Guest, _ *recover.Options) {
			h.Cloud.Errs["ComputeService"] = recover.ErrForbidden
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{})
			h.Online()
			h.Purge()
			o := recovertest.Options(g)
			base(c.change)(h, g, &o)
			whole, err := runtest.PlanOnline(t, h, o)
			recovertest.Must(t, err)
			todo := runtest.PlanOf(t, whole, g.UUID)
			want := recover.ActionRefuse
			if c.says == "" {
				want = recover.ActionReboot
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
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		h.Online()
		h.Purge()
		h.Cloud.Errs["ComputeService"] = recover.ErrCloudUnavailable
		if _, err := runtest.PlanOnline(t, h, recovertest.Options(g)); !errors.Is(err, recover.ErrCloudUnavailable) {
			t.Error(err)
		}
	})
}

// Only what a hard reboot needs is asked for: nothing of it when there is none.
func TestWhatIsPutBackWhileTheGuestRunsNeedsNoRebootableState(t *testing.T) {
	for _, vm := range []string{recover.VMRescued, recover.VMResized, recover.VMActive} {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{Base: "b"})
		h.Online()
		h.Cloud.Instances[g.UUID].To(vm)
		delete(h.Cloud.Services, "node")
		recovertest.Must(t, os.Remove(g.Base))
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%s: %+v", vm, r)
		}
		if err := h.Cloud.In(g.UUID, vm, false, 0); err != nil {
			t.Error(err)
		}
		if h.Cloud.Called("Lock", g.UUID) != 1 {
			t.Errorf("%s: it was not locked meanwhile", vm)
		}
	}
}
