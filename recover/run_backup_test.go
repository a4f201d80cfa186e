package recover

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
)

// backUp backs guests up into a new directory and returns it.
func backUp(h *host, t *testing.T, change func(*Options), guests ...*testGuest) (string, RunReport) {
	t.Helper()
	o := options(guests...)
	o.BackupDir = filepath.Join(t.TempDir(), "backup")
	if change != nil {
		change(&o)
	}
	report, err := h.run(t.Context(), CommandBackup, o)
	must(t, err)
	return o.BackupDir, report
}

func TestABackupHasTheManualLayoutAndLeavesTheGuestRunning(t *testing.T) {
	h := newHost(t)
	a := h.add(1, guestOptions{base: "shared", console: true, config: true, agent: true})
	b := h.add(2, guestOptions{base: "shared", state: StatePaused})
	pids := [2]int{h.hv.get(a.uuid).PID, h.hv.get(b.uuid).PID}
	h.purge()
	dir, report := backUp(h, t, func(o *Options) { o.Parallel = 2 }, a, b)
	for _, g := range []*testGuest{a, b} {
		if r := g.report(report); r.Outcome != OutcomeRescued {
			t.Fatalf("%+v", r)
		}
	}
	must(t, a.asFound(StateRunning, pids[0]))
	must(t, b.asFound(StatePaused, pids[1]))
	m, err := readManifest(dir)
	must(t, err)
	if len(m.Instances) != 2 {
		t.Fatalf("%d entries", len(m.Instances))
	}
	for _, g := range []*testGuest{a, b} {
		entry, ok := m.find(g.uuid)
		if !ok || len(entry.Files) != len(g.content) || entry.Snapshot.Process.PID == 0 || entry.Definition == "" || entry.Run != report.Run {
			t.Errorf("%+v", entry)
		}
		for _, f := range entry.Files {
			data, err := os.ReadFile(filepath.Join(dir, f.Stored))
			must(t, err)
			sum := sha256.Sum256(data)
			if !bytes.Equal(data, g.content[f.Path]) || f.SHA256 != hex.EncodeToString(sum[:]) || f.Size != int64(len(data)) {
				t.Errorf("%s: %+v", f.Path, f)
			}
			if want := strings.TrimPrefix(f.Path, h.settings.InstancesPath+"/"); f.Stored != want {
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
	for _, r := range h.records(report.Run) {
		if r.Point() == "store.begin" && filepath.Base(r.Path) == "shared" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the shared base was stored %d times", n)
	}
	if a.pinned() == 0 {
		t.Error("what is still lost is not held any more")
	}
}

func TestABackupIsNeverWrittenOver(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	dir, _ := backUp(h, t, nil, g)
	before, err := os.ReadFile(filepath.Join(dir, manifestName))
	must(t, err)
	_, report := backUp(h, t, func(o *Options) { o.BackupDir = dir }, g)
	if r := g.report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, ErrConflict.Error()) {
		t.Errorf("%+v", r)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, manifestName)); !bytes.Equal(before, after) {
		t.Error("the manifest was changed")
	}
	if h.hv.called("suspend", g.uuid) != 1 {
		t.Error("the guest was paused for nothing")
	}
}

func TestABackupLeavesTheGuestPausedIfAskedAndNeverFrozen(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{agent: true})
	pid := h.hv.get(g.uuid).PID
	dir, report := backUp(h, t, func(o *Options) { o.KeepPaused = true }, g)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.asFound(StatePaused, pid))
	m, err := readManifest(dir)
	must(t, err)
	if e := m.Instances[0]; e.Found != StateRunning || e.Left != StatePaused {
		t.Errorf("found %s, left %s", e.Found, e.Left)
	}
}

func TestABackupOfAGuestThatWroteMeanwhileIsNoBackup(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	pid := h.hv.get(g.uuid).PID
	n := 0
	h.hv.before = func(method, uuid string) {
		if method == "counters" {
			if n++; n == 2 {
				h.hv.change(uuid, (*fakeDomain).write)
			}
		}
	}
	dir, report := backUp(h, t, nil, g)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, ErrUnproven.Error()) {
		t.Errorf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
	if _, err := readManifest(dir); err == nil {
		t.Error("it is in the manifest")
	}
	// Nothing of it is in the way of the next one.
	h.hv.before = nil
	_, report = backUp(h, t, func(o *Options) { o.BackupDir = dir }, g)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
}

func TestABackupsFailureToLetTheGuestGoOnIsSaid(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.hv.errs["resume"] = errors.New("no answer from the monitor")
	_, report := backUp(h, t, nil, g)
	r := g.report(report)
	if r.Outcome != OutcomeFailed || strings.Contains(r.Error, "it is as it was found") {
		t.Errorf("%+v", r)
	}
	h.hv.errs = map[string]error{}
	report, err := h.resume(t.Context(), report.Run)
	must(t, err)
	if d := h.hv.get(g.uuid); d.State != StateRunning {
		t.Errorf("after resume it is %s: %+v", d.State, report.Instances)
	}
}

func TestCtrlCInABackupLeavesNoHalfOne(t *testing.T) {
	for _, point := range []string{"suspend.done", "backup.begin", "store.begin", "store.done"} {
		t.Run(point, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{agent: true})
			pid := h.hv.get(g.uuid).PID
			ctx, cancel := context.WithCancel(t.Context())
			e := h.engine()
			e.Failpoint = func(p string) {
				if p == point {
					cancel()
				}
			}
			o := options(g)
			o.BackupDir = filepath.Join(t.TempDir(), "backup")
			s, err := e.Prepare(ctx, CommandBackup, o)
			must(t, err)
			report, err := s.Execute(ctx)
			s.Close()
			must(t, err)
			if r := g.report(report); r.Outcome == OutcomeRescued || !report.Interrupted {
				t.Errorf("%+v", r)
			}
			must(t, g.asFound(StateRunning, pid))
			if _, err := os.Stat(filepath.Join(o.BackupDir, g.uuid)); err == nil {
				t.Error("half a backup was left behind")
			}
		})
	}
}

func TestARescueKeepsABackupAsWell(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	h.purge()
	o := options(g)
	o.BackupDir = filepath.Join(t.TempDir(), "backup")
	report, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateRunning))
	for path, want := range g.content {
		got, err := os.ReadFile(filepath.Join(o.BackupDir, storedName(path, h.settings.InstancesPath)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestARestoreIsRefusedWhenTheGuestMayHaveWrittenSince(t *testing.T) {
	for name, c := range map[string]struct {
		since func(*host, *testGuest)
		older bool
		ok    bool
	}{
		"the guest wrote nothing":                     {func(*host, *testGuest) {}, false, true},
		"the guest wrote":                             {func(h *host, g *testGuest) { h.hv.change(g.uuid, (*fakeDomain).write) }, false, false},
		"the guest wrote, and that is accepted":       {func(h *host, g *testGuest) { h.hv.change(g.uuid, (*fakeDomain).write) }, true, true},
		"its QEMU has ended":                          {func(h *host, g *testGuest) { h.hv.change(g.uuid, (*fakeDomain).off) }, false, false},
		"its QEMU has ended, and that is accepted":    {func(h *host, g *testGuest) { h.hv.change(g.uuid, (*fakeDomain).off) }, true, true},
		"libvirt has forgotten it":                    {func(h *host, g *testGuest) { h.hv.forget(g.uuid) }, false, false},
		"libvirt has forgotten it, which is accepted": {func(h *host, g *testGuest) { h.hv.forget(g.uuid) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{base: "b", config: true})
			dir, _ := backUp(h, t, nil, g)
			h.purge()
			h.killKeeper()
			c.since(h, g)
			o := options(g)
			o.BackupDir, o.AcceptOlder = dir, c.older
			report, err := h.run(t.Context(), CommandRestore, o)
			must(t, err)
			r := g.report(report)
			if c.ok {
				if r.Outcome != OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				must(t, g.serving(StateRunning))
				if n := g.pinned(); n != 0 {
					t.Errorf("%d pins are left", n)
				}
				return
			}
			if r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, ErrOlder.Error()) || !strings.Contains(r.Error, "--accept-older") {
				t.Errorf("%+v", r)
			}
			if _, err := os.Stat(g.disk); err == nil {
				t.Error("the disk was restored")
			}
		})
	}
}

func TestARestoreWhoseGuestWritesAfterThePlanIsGivenUp(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	pid := h.hv.get(g.uuid).PID
	dir, _ := backUp(h, t, nil, g)
	h.purge()
	h.hv.before = func(method, uuid string) {
		if method == "suspend" {
			h.hv.change(uuid, (*fakeDomain).write)
		}
	}
	o := options(g)
	o.BackupDir = dir
	report, err := h.run(t.Context(), CommandRestore, o)
	must(t, err)
	if r := g.report(report); r.Outcome == OutcomeRescued || !strings.Contains(r.Error, ErrOlder.Error()) {
		t.Errorf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
}

func TestARestoreRefusesABackupThatWasDamaged(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	pid := h.hv.get(g.uuid).PID
	dir, _ := backUp(h, t, nil, g)
	h.purge()
	path := filepath.Join(dir, g.uuid, "disk")
	data, err := os.ReadFile(path)
	must(t, err)
	data[100]++
	must(t, os.WriteFile(path, data, 0o600))
	o := options(g)
	o.BackupDir = dir
	report, err := h.run(t.Context(), CommandRestore, o)
	must(t, err)
	if r := g.report(report); r.Outcome == OutcomeRescued || !strings.Contains(r.Error, "SHA-256") {
		t.Errorf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
}

func TestARestoreOfAnInstanceThatIsIntactDoesNothing(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	pid := h.hv.get(g.uuid).PID
	dir, _ := backUp(h, t, nil, g)
	o := options(g)
	o.BackupDir = dir
	report, err := h.run(t.Context(), CommandRestore, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeIntact {
		t.Errorf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
}

func TestARestoreFromADirectoryWithoutABackupIsBadUsage(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	o := options(g)
	o.BackupDir = t.TempDir()
	if s, err := h.engine().Prepare(t.Context(), CommandRestore, o); s != nil || !errors.Is(err, ErrUsage) || !errors.Is(err, ErrNoBackup) {
		t.Errorf("%v", err)
	}
}

// Two files of one name in two directories must not get into each other's way.
func TestFilesOfOneNameAreRestoredEachToItsOwnPlace(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	dir, _ := backUp(h, t, nil, g)
	m, err := readManifest(dir)
	must(t, err)
	second := filepath.Join(g.dir, "more/disk")
	content := payload(55, 40<<10)
	must(t, os.MkdirAll(filepath.Join(dir, g.uuid, "more"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, g.uuid, "more/disk"), content, 0o600))
	sum := sha256.Sum256(content)
	f := m.Instances[0].Files[0]
	f.Path, f.Stored, f.Size, f.SHA256, f.Writable = second, g.uuid+"/more/disk", int64(len(content)), hex.EncodeToString(sum[:]), true
	f.Role, f.Target = RoleDisk, "vdb"
	m.Instances[0].Files = append(m.Instances[0].Files, f)
	data, err := json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, manifestName), data, 0o600))
	h.hv.forget(g.uuid)
	h.purge()
	o := options(g)
	o.BackupDir, o.AcceptOlder = dir, true
	report, err := h.run(t.Context(), CommandRestore, o)
	must(t, err)
	g.content[second] = content
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateRunning))
}

func TestAGuestThatEndsDuringItsBackupCanStillBeRescued(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", agent: true})
	h.purge()
	h.hv.before = func(method, uuid string) {
		if method == "freeze" {
			h.hv.change(uuid, (*fakeDomain).off)
		}
	}
	_, report := backUp(h, t, nil, g)
	if r := g.report(report); r.Outcome == OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	h.hv.before = nil
	if status, err := h.runs().find(report.Run); err == nil && status.State == RunInterrupted {
		_, err = h.resume(t.Context(), report.Run)
		must(t, err)
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if err := g.serving(StateShutOff); err != nil {
		t.Error(err)
	}
}

func TestABackupWhoseGuestEndsWhileItIsCopiedIsNotCalledOneOfARunningGuest(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", agent: true})
	h.purge()
	endsWhen(h, "domain", 2)
	dir, report := backUp(h, t, nil, g)
	r := g.report(report)
	m, err := readManifest(dir)
	if r.Outcome == OutcomeRescued || err == nil && len(m.Instances) > 0 && m.Instances[0].Left == StateRunning {
		t.Errorf("%+v; the manifest says that it was left %+v", r, m.Instances)
	}
}

// One instance's complete backup needs the shared base that another's interrupted
// one would store again.
func TestResumeNeverRemovesABaseThatACompleteBackupNeeds(t *testing.T) {
	h := newHost(t)
	a, b := h.add(1, guestOptions{base: "shared"}), h.add(2, guestOptions{base: "shared"})
	h.purge()
	o := options(a, b)
	o.BackupDir = filepath.Join(t.TempDir(), "backup")
	e := h.engine()
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
		if s, err := e.Prepare(context.Background(), CommandBackup, o); err == nil {
			s.Execute(context.Background())
		}
	}()
	<-crashed
	info, _ := stateDir(h.settings.StateDir).running()
	h.dropLock()
	for _, point := range []string{"store.begin", "store.done"} {
		// An interruption in the middle of storing it again.
		ctx, cancel := context.WithCancel(t.Context())
		e := h.engine()
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
		if got, err := os.ReadFile(filepath.Join(o.BackupDir, "_base/shared")); err != nil || !bytes.Equal(got, a.content[a.base]) {
			t.Fatalf("interrupted at %s: the base of a complete backup: %v", point, err)
		}
	}
}
