package run_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

const nobody = 65534

// directoriesOfNobody makes the table of a host, whose directories are root's, say that they
// are nobody's.
func directoriesOfNobody(h *runtest.Host) {
	rule := recover.OwnerRule{User: "+65534", Group: "+65534", Mode: 0o755}
	o := &h.Settings.Owners
	o.InstancesDir, o.BaseDir, o.InstanceDir, o.LocksDir = rule, rule, rule, rule
}

func ownerOf(t *testing.T, path string) uint32 {
	t.Helper()
	st, err := os.Stat(path)
	recovertest.Must(t, err)
	return st.Sys().(*syscall.Stat_t).Uid
}

func TestAnIntactInstanceOfWrongDirectoriesGetsThemRightAndIsNotTouched(t *testing.T) {
	h := runtest.NewHost(t)
	directoriesOfNobody(h)
	g, other := h.Add(1, recovertest.GuestOptions{Base: "b"}), h.Add(2, recovertest.GuestOptions{Base: "b"})
	c := h.Online()
	pid := h.HV.Get(g.UUID).PID
	report, err := h.Scanner().Thorough().Host(t.Context(), recover.Hints{})
	recovertest.Must(t, err)
	if i := report.Instances[0]; i.Verdict != recover.VerdictIntact || len(i.Directories) != 3 {
		t.Fatalf("scanned: %s, %+v", i.Verdict, i.Directories)
	}
	plan, err := runtest.PlanOnline(t, h, recovertest.Options(g, other))
	recovertest.Must(t, err)
	first, second := runtest.PlanOf(t, plan, g.UUID), runtest.PlanOf(t, plan, other.UUID)
	if first.Action != recover.ActionDirectories || len(first.Steps) != 3 || !strings.Contains(first.Steps[0], h.Settings.InstancesPath) {
		t.Errorf("planned: %s, %v", first.Action, first.Steps)
	}
	if len(second.Steps) != 1 || !strings.Contains(second.Steps[0], other.Dir) {
		t.Errorf("of the second one: %v: what they share is planned twice", second.Steps)
	}
	if n := len(plan.Disruptive()); n > 0 {
		t.Errorf("%d of them are disturbed", n)
	}
	done, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g, other))
	recovertest.Must(t, err)
	for _, g := range []*recovertest.Guest{g, other} {
		if r := g.Report(done); r.Outcome != recover.OutcomeIntact || r.Error != "" || !strings.Contains(strings.Join(r.Notes, " "), g.Dir) {
			t.Errorf("%+v", r)
		}
		if uid := ownerOf(t, g.Dir); uid != nobody {
			t.Errorf("%s is %d's", g.Dir, uid)
		}
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	if n := c.Called("Lock", ""); n > 0 {
		t.Errorf("it was locked %d times", n)
	}
	if got := h.Planned(g, recover.CommandRescue, recovertest.Options(g)); got.Action != recover.ActionNone {
		t.Errorf("afterwards there is %s to do: %v", got.Action, got.Steps)
	}
}

// TestNobodyButRootCanWriteWhereLibvirtMakesAMirror: it makes files by path and as root.
func TestNobodyButRootCanWriteWhereLibvirtMakesAMirror(t *testing.T) {
	for name, lose := range map[string]func(*recovertest.Guest){
		"the directory is gone": (*recovertest.Guest).Rm,
		"it is root's": func(g *recovertest.Guest) {
			g.Rm()
			recovertest.Must(t, os.Mkdir(g.Dir, 0o755))
		},
		"it is as the table says": func(g *recovertest.Guest) {
			recovertest.Must(t, os.Remove(g.Disk))
			recovertest.Must(t, os.Chown(g.Dir, nobody, nobody))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			directoriesOfNobody(h)
			g := h.Add(1, recovertest.GuestOptions{})
			lose(g)
			e := h.Engine()
			looked := 0
			e.Failpoint = func(point string) {
				if point == "mirror.begin" || point == "pivot.done" {
					if looked++; ownerOf(t, g.Dir) != 0 {
						t.Errorf("at %s it is not root's", point)
					}
				}
			}
			o := recovertest.OfflineOptions(g)
			o.Mode = recover.ModeLive
			report := executed(t, e, o)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued || looked != 2 {
				t.Fatalf("%d looks, %+v", looked, r)
			}
			if uid := ownerOf(t, g.Dir); uid != nobody {
				t.Errorf("afterwards it is %d's", uid)
			}
		})
	}
}

func TestARescueGivesTheDirectoriesTheirOwnersWhereverItIsResumed(t *testing.T) {
	setUp := func(t *testing.T) (*runtest.Host, *recovertest.Guest) {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
		h.Purge() // and somebody makes what he can by hand, as root
		directoriesOfNobody(h)
		recovertest.Must(t, os.Mkdir(g.Dir, 0o700))
		return h, g
	}
	check := func(t *testing.T, h *runtest.Host, g *recovertest.Guest, r recover.InstanceReport) {
		t.Helper()
		if r.Outcome != recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		recovertest.Must(t, g.Serving(recover.StateRunning))
		for _, dir := range []string{g.Dir, h.Settings.InstancesPath, h.Settings.InstancesPath + "/_base"} {
			if uid := ownerOf(t, dir); uid != nobody {
				t.Errorf("%s is %d's", dir, uid)
			}
		}
		if st, _ := os.Stat(g.Dir); st.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v", g.Dir, st.Mode())
		}
	}
	h, g := setUp(t)
	steps := h.Planned(g, recover.CommandRescue, recovertest.Options(g)).Steps
	if !slices.ContainsFunc(steps, func(s string) bool { return strings.Contains(s, g.Dir+" its owner") }) {
		t.Errorf("not planned: %v", steps)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	check(t, h, g, g.Report(report))

	for k, point := range runtest.Points(h.Journal(report.Run)) {
		if !strings.HasPrefix(point, "own.") && point != "destroy.done" && point != "publish.done" {
			continue
		}
		t.Run(point, func(t *testing.T) {
			h, g := setUp(t)
			name, got := h.CrashAt(recover.CommandRescue, recovertest.Options(g), k+1)
			if got != point {
				t.Fatalf("crashed at %q", got)
			}
			// The run of an older version, or somebody else meanwhile.
			recovertest.Must(t, os.Chown(g.Dir, 0, 0))
			report, err := h.Resume(t.Context(), name)
			recovertest.Must(t, err)
			check(t, h, g, g.Report(report))
		})
	}
}

// TestAFileOfTheSameBytesAtTheBasesPathIsNoConflict: another host has put it back, say.
func TestAFileOfTheSameBytesAtTheBasesPathIsNoConflict(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(content []byte) []byte
		verdict recover.Verdict
		says    string
	}{
		"the same bytes": {verdict: recover.VerdictIntact, says: "the same bytes"},
		"one other byte": {change: func(b []byte) []byte { b[9]++; return b }, verdict: recover.VerdictConflict, says: "differs"},
		"another size":   {change: func(b []byte) []byte { return b[:9] }, verdict: recover.VerdictConflict, says: "stands at its path"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g, other := h.Add(1, recovertest.GuestOptions{Base: "b"}), h.Add(2, recovertest.GuestOptions{Base: "b"})
			pid := h.HV.Get(g.UUID).PID
			content := slices.Clone(g.Content[g.Base])
			if c.change != nil {
				content = c.change(content)
			}
			recovertest.Must(t, os.Remove(g.Base))
			recovertest.Must(t, os.WriteFile(g.Base, content, 0o644))
			report, err := h.Scanner().Thorough().Host(t.Context(), recover.Hints{})
			recovertest.Must(t, err)
			for _, i := range report.Instances {
				n := slices.IndexFunc(i.Files, func(f recover.File) bool { return f.Path == g.Base })
				if i.Verdict != c.verdict || !strings.Contains(i.Files[n].Reason, c.says) {
					t.Errorf("%s, %q", i.Verdict, i.Files[n].Reason)
				}
			}
			if v := h.Scan(g).Verdict; v != recover.VerdictConflict {
				t.Errorf("a quick scan has compared it: %s", v)
			}
			if c.change != nil {
				return
			}
			plan := h.Planned(g, recover.CommandRescue, recovertest.Options(g, other))
			if plan.Action != recover.ActionNone {
				t.Errorf("planned: %s %s", plan.Action, plan.Refusal)
			}
			// The run, which pins first, compares it itself, and from then on its journal tells.
			done, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g, other))
			recovertest.Must(t, err)
			if r := g.Report(done); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
				t.Errorf("afterwards: %s", v)
			}
		})
	}
}
