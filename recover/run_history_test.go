package recover

import "testing"

func TestPriorsTellHowFarAnInterruptedRunCame(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", agent: true})
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	all := h.records(report.Run)
	upTo := func(point, path string) *prior {
		for n, r := range all {
			if r.Point() == point && (path == "" || r.Path == path) {
				p, err := priorsOf(all[:n+1])
				must(t, err)
				return p[g.uuid]
			}
		}
		t.Fatalf("no %s in %v", point, points(all))
		return nil
	}
	plan, ok, err := planOf(all)
	if err != nil || !ok {
		t.Fatal(err)
	}
	var disk FilePlan
	for _, f := range plan.Instances[0].Files {
		if f.Path == g.disk {
			disk = f
		}
	}
	if p := upTo("pin.done", ""); p.begun {
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
		{point: "ahead.begin", path: g.disk},
		{point: "ahead.done", path: g.disk},
		{point: "copy.begin", path: g.disk, freeze: true, suspend: true},
		{point: "copy.done", path: g.disk, freeze: true, suspend: true, proven: true},
		{point: "destroy.begin", freeze: true, suspend: true, proven: true, destroyBegun: true},
		{point: "destroy.done", freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true},
		{point: "publish.begin", path: g.disk, freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true, pub: true},
		{point: "publish.done", path: g.disk, freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true, pub: true},
		{point: "instance.done", freeze: true, suspend: true, proven: true, destroyBegun: true, destroyDone: true, pub: true, settled: true},
	} {
		p := upTo(c.point, c.path)
		_, proven := p.proven(disk)
		_, published := p.published[g.disk]
		if !p.begun || p.freezeBegun != c.freeze || p.suspendBegun != c.suspend || proven != c.proven || published != c.pub ||
			p.destroyBegun != c.destroyBegun || p.destroyDone != c.destroyDone || (p.settlement != nil) != c.settled {
			t.Errorf("at %s: %+v, disk proven %v, published %v", c.point, p, proven, published)
		}
	}
	other := disk
	other.Inode++
	if _, ok := upTo("copy.done", g.disk).proven(other); ok {
		t.Error("the copy of another inode is taken for this file's")
	}
}
