package run_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// backUp backs guests up into a new directory and returns it.
func backUp(h *runtest.Host, t *testing.T, change func(*recover.Options), guests ...*recovertest.Guest) (string, recover.RunReport) {
	t.Helper()
	o := recovertest.Options(guests...)
	o.BackupDir = filepath.Join(t.TempDir(), "backup")
	if change != nil {
		change(&o)
	}
	report, err := h.Run(t.Context(), recover.CommandBackup, o)
	recovertest.Must(t, err)
	return o.BackupDir, report
}

func TestABackupHasTheManualLayoutAndLeavesTheGuestRunning(t *testing.T) {
	h := runtest.NewHost(t)
	a := h.Add(1, recovertest.GuestOptions{Base: "shared", Console: true, Config: true, Agent: true})
	b := h.Add(2, recovertest.GuestOptions{Base: "shared", State: recover.StatePaused})
	pids := [2]int{h.HV.Get(a.UUID).PID, h.HV.Get(b.UUID).PID}
	h.Purge()
	dir, report := backUp(h, t, func(o *recover.Options) { o.Parallel = 2 }, a, b)
	for _, g := range []*recovertest.Guest{a, b} {
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
	}
	recovertest.Must(t, a.AsFound(recover.StateRunning, pids[0]))
	recovertest.Must(t, b.AsFound(recover.StatePaused, pids[1]))
	m, err := manifest.Read(dir, "")
	recovertest.Must(t, err)
	if len(m.Instances) != 2 {
		t.Fatalf("%d entries", len(m.Instances))
	}
	for _, g := range []*recovertest.Guest{a, b} {
		entry, ok := m.Find(g.UUID)
		if !ok || len(entry.Files) != len(g.Content) || entry.Snapshot.Process.PID == 0 || entry.Definition == "" || entry.Run != report.Run {
			t.Errorf("%+v", entry)
		}
		for _, f := range entry.Files {
			data, err := os.ReadFile(filepath.Join(dir, f.Stored))
			recovertest.Must(t, err)
			sum := sha256.Sum256(data)
			if !bytes.Equal(data, g.Content[f.Path]) || f.SHA256 != hex.EncodeToString(sum[:]) || f.Size != int64(len(data)) {
				t.Errorf("%s: %+v", f.Path, f)
			}
			if want := strings.TrimPrefix(f.Path, h.Settings.InstancesPath+"/"); f.Stored != want {
				t.Errorf("%s is stored as %s", f.Path, f.Stored)
			}
			if st, _ := os.Stat(filepath.Join(dir, f.Stored)); st.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v", f.Stored, st.Mode())
			}
		}
	}
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o700 {
		t.Errorf("%v", st.Mode())
	}
	n := 0
	for _, r := range h.Journal(report.Run) {
		if r.Point() == "store.begin" && filepath.Base(r.Path) == "shared" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the shared base was stored %d times", n)
	}
	if a.Pinned() == 0 {
		t.Error("what is still lost is not held any more")
	}
}

func TestABackupIsNeverWrittenOver(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	dir, _ := backUp(h, t, nil, g)
	before, err := os.ReadFile(filepath.Join(dir, manifest.FileName))
	recovertest.Must(t, err)
	_, report := backUp(h, t, func(o *recover.Options) { o.BackupDir = dir }, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, recover.ErrConflict.Error()) {
		t.Errorf("%+v", r)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, manifest.FileName)); !bytes.Equal(before, after) {
		t.Error("the manifest was changed")
	}
	if h.HV.Called("suspend", g.UUID) != 1 {
		t.Error("the guest was paused for nothing")
	}
}

func TestABackupLeavesTheGuestPausedIfAskedAndNeverFrozen(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Agent: true})
	pid := h.HV.Get(g.UUID).PID
	dir, report := backUp(h, t, func(o *recover.Options) { o.KeepPaused = true }, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StatePaused, pid))
	m, err := manifest.Read(dir, "")
	recovertest.Must(t, err)
	if e := m.Instances[0]; e.Found != recover.StateRunning || e.Left != recover.StatePaused {
		t.Errorf("found %s, left %s", e.Found, e.Left)
	}
}

func TestABackupOfAGuestThatWroteMeanwhileIsNoBackup(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	pid := h.HV.Get(g.UUID).PID
	n := 0
	h.HV.Before = func(method, uuid string) {
		if method == "counters" {
			if n++; n == 2 {
				h.HV.Change(uuid, (*recovertest.FakeDomain).Write)
			}
		}
	}
	dir, report := backUp(h, t, nil, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, recover.ErrUnproven.Error()) {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	if _, err := manifest.Read(dir, ""); err == nil {
		t.Error("it is in the manifest")
	}
	// Nothing of it is in the way of the next one.
	h.HV.Before = nil
	_, report = backUp(h, t, func(o *recover.Options) { o.BackupDir = dir }, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
}

func TestABackupsFailureToLetTheGuestGoOnIsSaid(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.HV.Errs["resume"] = errors.New("no answer from the monitor")
	_, report := backUp(h, t, nil, g)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeFailed || strings.Contains(r.Error, "is as it was found") {
		t.Errorf("%+v", r)
	}
	h.HV.Errs = map[string]error{}
	report, err := h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	if d := h.HV.Get(g.UUID); d.State != recover.StateRunning {
		t.Errorf("after resume it is %s: %+v", d.State, report.Instances)
	}
}

func TestCtrlCInABackupLeavesNoHalfOne(t *testing.T) {
	for _, point := range []string{"suspend.done", "backup.begin", "store.begin", "store.done"} {
		t.Run(point, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Agent: true})
			pid := h.HV.Get(g.UUID).PID
			ctx, cancel := context.WithCancel(t.Context())
			e := h.Engine()
			e.Failpoint = func(p string) {
				if p == point {
					cancel()
				}
			}
			o := recovertest.Options(g)
			o.BackupDir = filepath.Join(t.TempDir(), "backup")
			s, err := e.Prepare(ctx, recover.CommandBackup, o)
			recovertest.Must(t, err)
			report, err := s.Execute(ctx)
			s.Close()
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome == recover.OutcomeRescued || !report.Interrupted {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			if _, err := os.Stat(filepath.Join(o.BackupDir, g.UUID)); err == nil {
				t.Error("half a backup was left behind")
			}
		})
	}
}

func TestARescueKeepsABackupAsWell(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	o := recovertest.Options(g)
	o.BackupDir = filepath.Join(t.TempDir(), "backup")
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
	for path, want := range g.Content {
		got, err := os.ReadFile(filepath.Join(o.BackupDir, manifest.StoredName(path, h.Settings.InstancesPath)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestARestoreIsRefusedWhenTheGuestMayHaveWrittenSince(t *testing.T) {
	changed := func(do func(*recovertest.FakeDomain)) func(*runtest.Host, *recovertest.Guest) {
		return func(h *runtest.Host, g *recovertest.Guest) { h.HV.Change(g.UUID, do) }
	}
	wrote, ended := changed((*recovertest.FakeDomain).Write), changed((*recovertest.FakeDomain).Off)
	forgotten := func(h *runtest.Host, g *recovertest.Guest) { h.HV.Forget(g.UUID) }
	for name, c := range map[string]struct {
		since func(*runtest.Host, *recovertest.Guest)
		older bool // --accept-older
		ok    bool
	}{
		"the guest wrote nothing":                     {func(*runtest.Host, *recovertest.Guest) {}, false, true},
		"the guest wrote":                             {wrote, false, false},
		"the guest wrote, and that is accepted":       {wrote, true, true},
		"its QEMU has ended":                          {ended, false, false},
		"its QEMU has ended, and that is accepted":    {ended, true, true},
		"libvirt has forgotten it":                    {forgotten, false, false},
		"libvirt has forgotten it, which is accepted": {forgotten, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Config: true})
			dir, _ := backUp(h, t, nil, g)
			h.Purge()
			h.KillKeeper()
			c.since(h, g)
			o := recovertest.Options(g)
			o.BackupDir, o.AcceptOlder = dir, c.older
			report, err := h.Run(t.Context(), recover.CommandRestore, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if c.ok {
				if r.Outcome != recover.OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				if n := g.Pinned(); n != 0 {
					t.Errorf("%d pins are left", n)
				}
				return
			}
			if r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, recover.ErrOlder.Error()) ||
				!strings.Contains(r.Error, "--accept-older") {
				t.Errorf("%+v", r)
			}
			if _, err := os.Stat(g.Disk); err == nil {
				t.Error("the disk was restored")
			}
		})
	}
}

func TestARestoreWhoseGuestWritesAfterThePlanIsGivenUp(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	pid := h.HV.Get(g.UUID).PID
	dir, _ := backUp(h, t, nil, g)
	h.Purge()
	h.HV.Before = func(method, uuid string) {
		if method == "suspend" {
			h.HV.Change(uuid, (*recovertest.FakeDomain).Write)
		}
	}
	o := recovertest.Options(g)
	o.BackupDir = dir
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome == recover.OutcomeRescued || !strings.Contains(r.Error, recover.ErrOlder.Error()) {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

func TestARestoreRefusesABackupThatWasDamaged(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	pid := h.HV.Get(g.UUID).PID
	dir, _ := backUp(h, t, nil, g)
	h.Purge()
	path := filepath.Join(dir, g.UUID, "disk")
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	data[100]++
	recovertest.Must(t, os.WriteFile(path, data, 0o600))
	o := recovertest.Options(g)
	o.BackupDir = dir
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome == recover.OutcomeRescued || !strings.Contains(r.Error, "SHA-256") {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

func TestARestoreOfAnInstanceThatIsIntactDoesNothing(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	pid := h.HV.Get(g.UUID).PID
	dir, _ := backUp(h, t, nil, g)
	o := recovertest.Options(g)
	o.BackupDir = dir
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeIntact {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

// Without it the instance is intact: a start makes a new one, without what the guest had stored there.
func TestARestoreBringsBackAVariableStoreThatIsAllThatIsMissing(t *testing.T) {
	for _, point := range []string{"", "compare.done", "publish.begin"} {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
		nvram := g.Dir + "/nvram.fd"
		g.Content[nvram] = recovertest.Payload(5, 8<<10)
		recovertest.Must(t, os.WriteFile(nvram, g.Content[nvram], 0o600))
		h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.NVRAM = nvram })
		recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
		dir, _ := backUp(h, t, nil, g)
		g.Destroyed()
		recovertest.Must(t, os.Remove(nvram))
		o := recovertest.Options(g)
		o.BackupDir, o.NoReboot, o.AcceptOlder = dir, true, true
		if point != "" {
			id, at := h.CrashIn(recover.CommandRestore, o, func(e *run.Engine, here func(string)) {
				e.Failpoint = func(p string) {
					if p == point {
						here(p)
					}
				}
			})
			if at != point {
				t.Fatal("the run has no such point")
			}
			_, err := h.Resume(t.Context(), id)
			recovertest.Must(t, err)
		} else {
			report, err := h.Run(t.Context(), recover.CommandRestore, o)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
		}
		recovertest.Must(t, g.Back())
	}
}

func TestARestoreFromADirectoryWithoutABackupIsBadUsage(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	o := recovertest.Options(g)
	o.BackupDir = t.TempDir()
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRestore, o)
	if s != nil || !errors.Is(err, recover.ErrUsage) || !errors.Is(err, manifest.ErrNoBackup) {
		t.Errorf("%v", err)
	}
}

// Two files of one name in two directories must not get into each other's way.
func TestFilesOfOneNameAreRestoredEachToItsOwnPlace(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	dir, _ := backUp(h, t, nil, g)
	m, err := manifest.Read(dir, "")
	recovertest.Must(t, err)
	second := filepath.Join(g.Dir, "more/disk")
	content := recovertest.Payload(55, 40<<10)
	recovertest.Must(t, os.MkdirAll(filepath.Join(dir, g.UUID, "more"), 0o700))
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, g.UUID, "more/disk"), content, 0o600))
	sum := sha256.Sum256(content)
	f := m.Instances[0].Files[0]
	f.Path, f.Stored, f.Size, f.SHA256, f.Writable = second, g.UUID+"/more/disk", int64(len(content)), hex.EncodeToString(sum[:]), false
	f.Role, f.Target = recover.RoleBacking, ""
	m.Instances[0].Files = append(m.Instances[0].Files, f)
	data, err := json.Marshal(m)
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, manifest.FileName), data, 0o600))
	h.HV.Forget(g.UUID)
	h.Purge()
	o := recovertest.Options(g)
	o.BackupDir, o.AcceptOlder = dir, true
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	g.Content[second] = content
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

func TestAGuestThatEndsDuringItsBackupCanStillBeRescued(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
	h.Purge()
	h.HV.Before = func(method, uuid string) {
		if method == "freeze" {
			h.HV.Change(uuid, (*recovertest.FakeDomain).Off)
		}
	}
	_, report := backUp(h, t, nil, g)
	if r := g.Report(report); r.Outcome == recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	h.HV.Before = nil
	if status, err := h.Runs().Find(report.Run); err == nil && status.State == recover.RunInterrupted {
		_, err = h.Resume(t.Context(), report.Run)
		recovertest.Must(t, err)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if err := g.Serving(recover.StateShutOff); err != nil {
		t.Error(err)
	}
}

func TestABackupWhoseGuestEndsWhileItIsCopiedIsNotCalledOneOfARunningGuest(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
	h.Purge()
	endsWhen(h, "domain", 2)
	dir, report := backUp(h, t, nil, g)
	r := g.Report(report)
	m, err := manifest.Read(dir, "")
	if r.Outcome == recover.OutcomeRescued || err == nil && len(m.Instances) > 0 && m.Instances[0].Left == recover.StateRunning {
		t.Errorf("%+v; the manifest says that it was left %+v", r, m.Instances)
	}
}

// One instance's complete backup needs the shared base that another's interrupted
// one would store again.
func TestResumeNeverRemovesABaseThatACompleteBackupNeeds(t *testing.T) {
	h := runtest.NewHost(t)
	a, b := h.Add(1, recovertest.GuestOptions{Base: "shared"}), h.Add(2, recovertest.GuestOptions{Base: "shared"})
	h.Purge()
	o := recovertest.Options(a, b)
	o.BackupDir = filepath.Join(t.TempDir(), "backup")
	e := h.Engine()
	crashed, done := make(chan struct{}), 0
	e.Failpoint = func(point string) {
		if point == "instance.done" {
			done++
		}
		if done == 1 && point == "store.begin" {
			close(crashed)
			select {}
		}
	}
	go func() {
		if s, err := e.Prepare(context.Background(), recover.CommandBackup, o); err == nil {
			s.Execute(context.Background())
		}
	}()
	<-crashed
	info, _ := statedir.Dir(h.Settings.StateDir).Running()
	h.DropLock()
	for _, point := range []string{"store.begin", "store.done"} {
		// An interruption in the middle of storing it again.
		ctx, cancel := context.WithCancel(t.Context())
		e := h.Engine()
		e.Failpoint = func(p string) {
			if p == point {
				cancel()
			}
		}
		if s, err := e.PrepareResume(ctx, info.Run, false); err == nil {
			s.Execute(ctx)
			s.Close()
		}
		cancel()
		if got, err := os.ReadFile(filepath.Join(o.BackupDir, "_base/shared")); err != nil || !bytes.Equal(got, a.Content[a.Base]) {
			t.Fatalf("interrupted at %s: the base of a complete backup: %v", point, err)
		}
	}
}
