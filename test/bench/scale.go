package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/test/lab"
)

// The instances of one run.
const (
	manyInstances = 200
	fewInstances  = 20
)

const (
	mostMiB  = 128 // of memory
	perEach  = "s in all"
	flatness = 1.25
)

// scaleFigures measures whether a run's time per instance grows with their number.
func scaleFigures(o options) []figure {
	many, few := manyInstances, fewInstances
	if o.quick {
		many, few = 20, 5
	}
	var s scene
	rescue := func(count int) contender {
		return contender{fmt.Sprintf("os-rescue, %d instances", count), func(ctx context.Context, b *bench) error {
			return rescueStandIns(ctx, b, s.binary, count)
		}}
	}
	return []figure{{
		Name: fmt.Sprintf("scale: a rescue, per instance, %d in one run", many),
		Goal: all(flat(), atMost(peakName, mostMiB)),
		setup: func(ctx context.Context, _ *bench) (func(), error) {
			s = scene{ctx: ctx}
			err := s.try(func() { s.binary = lab.New(&s, lab.Options{}).Binary(&s) })
			return s.Close, err
		},
		ours:  rescue(many),
		peers: []contender{rescue(few)},
	}}
}

// flat asks that the time per instance does not grow.
func flat() goal {
	return goal{
		Text: fmt.Sprintf("per instance ≤ %g × the few's", flatness),
		met:  func(r result) bool { return r.Contenders[1].Ratio*flatness >= 1 },
	}
}

// rescueStandIns rescues instances in one offline run.
func rescueStandIns(ctx context.Context, b *bench, binary string, count int) error {
	dir, err := os.MkdirTemp(b.dir, "scale-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // qemu-img, which checks the images, is not root
		return err
	}
	h, err := newStandIn(ctx, filepath.Join(dir, "instances"))
	if err != nil {
		return err
	}
	defer h.Close()
	for n := range count {
		if err := h.add(ctx, uuid.NewString(), fmt.Sprintf("instance-%08x", n+1), "c1d2e3f4a5b64798a0b1c2d3e4f50617"); err != nil {
			return err
		}
	}
	if err := h.deleteTree(); err != nil {
		return err
	}
	e := standInEngine(h, binary, filepath.Join(dir, "state"))
	took, peak, err := rescueAll(ctx, e, recover.Options{Selection: recover.Selection{All: true}, Offline: true, Parallel: 2}, count)
	if err != nil {
		return err
	}
	b.Took(took / time.Duration(count))
	b.Value(perEach, took.Seconds())
	b.Value(peakName, peak)
	return nil
}

// standInEngine is os-rescue's own engine on the stand-in.
func standInEngine(h *standIn, binary, state string) *run.Engine {
	settings := recover.DefaultSettings()
	settings.Host, settings.StateDir, settings.InstancesPath = "stand-in", state, h.instances
	settings.KeeperCommand = []string{binary, "keeper", "--dir", state}
	return &run.Engine{Settings: settings, Hypervisor: h, Progress: recover.NoProgress{}}
}

// rescueAll makes one run, from its scan to its end, and returns its time and the peak
// of memory in MiB of this process, which includes the stand-in.
func rescueAll(ctx context.Context, e *run.Engine, o recover.Options, count int) (took time.Duration, peak float64, err error) {
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins anew, proc(5)
		return 0, 0, err
	}
	start := time.Now()
	session, err := e.Prepare(ctx, recover.CommandRescue, o)
	if err != nil {
		return 0, 0, err
	}
	report, err := session.Execute(ctx)
	took = time.Since(start)
	session.Close()
	rescued := 0
	for _, i := range report.Instances {
		if i.Outcome == recover.OutcomeRescued {
			rescued++
		} else if err == nil {
			err = fmt.Errorf("instance %s: %s: %s", i.UUID, i.Outcome, i.Error)
		}
	}
	if err == nil && rescued != count {
		err = fmt.Errorf("%d of %d instances were rescued", rescued, count)
	}
	return took, peakMemory(), err
}
