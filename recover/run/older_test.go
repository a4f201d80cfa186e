package run_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// keptPaused is a guest whose files are lost, and its backup with --keep-paused: the keeper
// holds what was lost. disk is open for writing.
func keptPaused(t *testing.T) (h *runtest.Host, g *recovertest.Guest, disk *os.File, dir string) {
	t.Helper()
	h = runtest.NewHost(t)
	g = h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
	disk = g.Opened(t)
	h.Purge()
	dir, report := backUp(h, t, func(o *recover.Options) { o.KeepPaused = true }, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	return h, g, disk, dir
}

func restore(h *runtest.Host, t *testing.T, g *recovertest.Guest, dir string, change func(*recover.Options)) recover.InstanceReport {
	t.Helper()
	o := recovertest.Options(g)
	o.BackupDir = dir
	if change != nil {
		change(&o)
	}
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	return g.Report(report)
}

// The manual way, with this program's commands: back up and keep paused, virsh destroy,
// put back.
func TestABackupIsRestoredAfterAnEndByHandIfWhatIsHeldEqualsIt(t *testing.T) {
	for name, end := range map[string]func(*recovertest.Guest){
		"destroyed":               (*recovertest.Guest).Destroyed,
		"destroyed and undefined": (*recovertest.Guest).Forgotten,
	} {
		t.Run(name, func(t *testing.T) {
			h, g, disk, dir := keptPaused(t)
			disk.Close()
			end(g)
			if r := restore(h, t, g, dir, nil); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
			if n := g.Pinned(); n != 0 {
				t.Errorf("%d pins are left", n)
			}
		})
	}
}

func TestARestoreIsRefusedIfWhatIsHeldIsNewerAndARescueBringsThatBack(t *testing.T) {
	for name, end := range map[string]func(*recovertest.Guest){
		"still paused":            func(*recovertest.Guest) {},
		"destroyed":               (*recovertest.Guest).Destroyed,
		"destroyed and undefined": (*recovertest.Guest).Forgotten,
	} {
		t.Run(name, func(t *testing.T) {
			h, g, disk, dir := keptPaused(t)
			g.Writes(t, disk, 5000, "written after the backup") // which no counter tells
			disk.Close()
			end(g)
			r := restore(h, t, g, dir, nil)
			if r.Outcome != recover.OutcomeSkipped {
				t.Fatalf("%+v", r)
			}
			for _, said := range []string{
				recover.ErrOlder.Error(), g.Disk, "/proc/", "from byte 5000 on", "os-rescue --instance " + g.UUID, "--accept-older",
			} {
				if !strings.Contains(r.Error, said) {
					t.Errorf("%q is not said: %s", said, r.Error)
				}
			}
			if _, err := os.Lstat(g.Disk); err == nil {
				t.Error("the older disk was put back")
			}
			if name == "destroyed and undefined" {
				return // only Nova, or the guard, knows it
			}
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Back())
		})
	}
}

func TestWhatAProcessHoldsThatTheOperatorNamesIsComparedToo(t *testing.T) {
	h, g, disk, dir := keptPaused(t)
	h.KillKeeper()
	g.Destroyed()
	if r := restore(h, t, g, dir, nil); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "--holder") {
		t.Fatalf("%+v", r)
	}
	named := func(o *recover.Options) { o.Holders = []int{os.Getpid()} }
	before := append([]byte{}, g.Content[g.Disk]...)
	g.Writes(t, disk, 100, "newer")
	if r := restore(h, t, g, dir, named); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "from byte 100 on") {
		t.Fatalf("%+v", r)
	}
	g.Writes(t, disk, 100, string(before[100:105]))
	if r := restore(h, t, g, dir, named); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

func TestWhatIsKnownSinceTheBackupIsSaidWhereNobodyHoldsTheFiles(t *testing.T) {
	for name, c := range map[string]struct {
		keep   bool
		change func(*manifest.Instance)
		want   []string
	}{
		"it ran on":        {false, nil, []string{"went on running after the backup", "has ended"}},
		"it stayed paused": {true, nil, []string{"left paused after the backup", "nothing tells whether somebody resumed it", "had written"}},
		"the host was booted": {true, func(i *manifest.Instance) { i.Snapshot.Process.BootID = "another" },
			[]string{"this host was booted since"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{})
			dir, _ := backUp(h, t, func(o *recover.Options) { o.KeepPaused = c.keep }, g)
			if c.change != nil {
				changeManifest(t, dir, func(m *manifest.Manifest) { c.change(&m.Instances[0]) })
			}
			h.Purge()
			g.Destroyed()
			r := restore(h, t, g, dir, nil)
			if r.Outcome != recover.OutcomeSkipped {
				t.Fatalf("%+v", r)
			}
			for _, said := range append(c.want, "no process that os-rescue knows of holds", "--accept-older") {
				if !strings.Contains(r.Error, said) {
					t.Errorf("%q is not said: %s", said, r.Error)
				}
			}
			if r := restore(h, t, g, dir, func(o *recover.Options) { o.AcceptOlder = true }); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%+v", r)
			}
		})
	}
}

// Somebody lets the guest go on between the comparison and the destroy, or QEMU itself
// writes when it ends.
func TestWhatIsWrittenAtTheEndOfARestoresQEMUIsNotLost(t *testing.T) {
	h, g, disk, dir := keptPaused(t)
	h.HV.Before = func(method, _ string) {
		if method == "destroy" {
			g.Writes(t, disk, 3000, "the last words")
		}
	}
	r := restore(h, t, g, dir, nil)
	if r.Outcome != recover.OutcomeRescued || len(r.Notes) == 0 {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

func TestAKilledRestoreLosesNothingThatWasWrittenBeforeItsResume(t *testing.T) {
	for _, point := range []string{"unchanged.done", "compare.done", "destroy.begin", "destroy.done", "publish.begin"} {
		t.Run(point, func(t *testing.T) {
			h, g, disk, dir := keptPaused(t)
			o := recovertest.Options(g)
			o.BackupDir = dir
			name, at := h.CrashIn(recover.CommandRestore, o, func(e *run.Engine, here func(string)) {
				e.Failpoint = func(p string) {
					if p == point {
						here(p)
					}
				}
			})
			if at != point {
				t.Fatal("the run has no such point")
			}
			g.Writes(t, disk, 3000, "written meanwhile")
			report, err := h.Resume(t.Context(), name)
			recovertest.Must(t, err)
			r := g.Report(report)
			if point == "destroy.done" {
				if r.Outcome != recover.OutcomeRescued {
					t.Errorf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				return
			}
			if !strings.Contains(r.Error, recover.ErrOlder.Error()) {
				t.Fatalf("%+v", r)
			}
			report, err = h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Back())
		})
	}
}

// A backup of which one instance can't be restored gives the other, which shares its base.
func TestOneOfTwoInstancesOfABackupIsRestored(t *testing.T) {
	h := runtest.NewHost(t)
	a, b := h.Add(1, recovertest.GuestOptions{Base: "shared"}), h.Add(2, recovertest.GuestOptions{Base: "shared"})
	h.Purge()
	dir, _ := backUp(h, t, func(o *recover.Options) { o.KeepPaused = true }, a, b)
	a.Destroyed()
	b.Destroyed()
	path := filepath.Join(dir, a.UUID, "disk")
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	data[100]++
	recovertest.Must(t, os.WriteFile(path, data, 0o600))
	o := recovertest.Options(a, b)
	o.BackupDir = dir
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	if r := a.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "SHA-256") ||
		strings.Contains(r.Error, recover.ErrOlder.Error()) {
		t.Errorf("%+v", r)
	}
	if r := b.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, b.Serving(recover.StateRunning))
}

// changeManifest changes what a backup's manifest says.
func changeManifest(t *testing.T, dir string, change func(*manifest.Manifest)) {
	t.Helper()
	m, err := manifest.Read(dir, "")
	recovertest.Must(t, err)
	change(&m)
	data, err := json.Marshal(m)
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, manifest.FileName), data, 0o600))
}
