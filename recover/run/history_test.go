package run_test

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAHistoryTellsHowFarAnInterruptedRunCame(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	all := h.Journal(report.Run)
	upTo := func(point, path string) *journal.History {
		for n, r := range all {
			if r.Point() == point && (path == "" || r.Path == path) {
				p, err := journal.HistoriesOf(all[:n+1])
				recovertest.Must(t, err)
				return p[g.UUID]
			}
		}
		t.Fatalf("no %s in %v", point, runtest.Points(all))
		return nil
	}
	plan, ok, err := journal.PlanOf(all)
	if err != nil || !ok {
		t.Fatal(err)
	}
	var disk recover.FilePlan
	for _, f := range plan.Instances[0].Files {
		if f.Path == g.Disk {
			disk = f
		}
	}
	if p := upTo("pin.done", ""); p.Begun {
		t.Error("only pinned, and it counts as begun")
	}
	for _, c := range []struct {
		point, path                  string
		freeze, suspend, proven, pub bool
		destroyBegun, destroyDone    bool
		settled                      bool
	}{
		{point: "instance.begin"},
		{point: "freeze.begin", freeze: true},
		{point: "suspend.begin", freeze: true, suspend: true},
		{point: "ahead.begin", path: g.Disk},
		{point: "ahead.done", path: g.Disk},
		{point: "copy.begin", path: g.Disk, freeze: true, suspend: true},
		{point: "copy.done", path: g.Disk, freeze: true, suspend: true, proven: true},
		{point: "destroy.begin", freeze: true, suspend: true, proven: true, destroyBegun: true},
		{point: "destroy.done", freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true},
		{point: "publish.begin", path: g.Disk, freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true, pub: true},
		{point: "publish.done", path: g.Disk, freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true, pub: true},
		{point: "instance.done", freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true, pub: true, settled: true},
	} {
		p := upTo(c.point, c.path)
		_, proven := p.Proven(disk)
		_, published := p.Published[g.Disk]
		if !p.Begun || p.FreezeBegun != c.freeze || p.SuspendBegun != c.suspend || proven != c.proven || published != c.pub ||
			p.DestroyBegun != c.destroyBegun || p.DestroyDone != c.destroyDone || (p.Settlement != nil) != c.settled {
			t.Errorf("at %s: %+v, disk proven %v, published %v", c.point, p, proven, published)
		}
	}
	other := disk
	other.Inode++
	if _, ok := upTo("copy.done", g.Disk).Proven(other); ok {
		t.Error("the copy of another inode is taken for this file's")
	}
}
