package recover

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func writeJournal(t testing.TB, dir string, steps ...string) {
	t.Helper()
	j, _, err := openJournal(dir, nil)
	must(t, err)
	defer j.Close()
	for _, s := range steps {
		must(t, j.Write(Record{Step: s, Phase: PhaseBegin}, nil))
	}
}

func TestATornLastLineIsPassedOverAndWrittenAnew(t *testing.T) {
	for name, torn := range map[string]string{
		"half a record":             `{"seq":3,"step":"co`,
		"no end of line":            `{"seq":3,"step":"copy","phase":"begin"}`,
		"a line of zeros":           "\x00\x00\x00\x00\n",
		"a line that is no record":  "garbage\n",
		"half a record with an end": "{\"seq\":3,\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeJournal(t, dir, "one", "two")
			f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			f.WriteString(torn)
			f.Close()
			if records, err := readJournal(dir); err != nil || len(records) != 2 {
				t.Fatalf("%d records, %v", len(records), err)
			}
			writeJournal(t, dir, "three")
			records, err := readJournal(dir)
			must(t, err)
			if len(records) != 3 || records[2].Step != "three" || records[2].Seq != 3 {
				t.Errorf("after it was opened again: %+v", records)
			}
		})
	}
}

func TestGarbageInTheMiddleOfAJournalIsAnErrorWithWhatCameBefore(t *testing.T) {
	dir := t.TempDir()
	writeJournal(t, dir, "one", "two")
	path := filepath.Join(dir, journalName)
	data, err := os.ReadFile(path)
	must(t, err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	must(t, os.WriteFile(path, slices.Concat(lines[0], []byte("garbage\n"), lines[1]), 0o600))
	records, err := readJournal(dir)
	if err == nil || len(records) != 1 {
		t.Errorf("%d records, %v", len(records), err)
	}
	if _, _, err := openJournal(dir, nil); err == nil {
		t.Error("it was opened for more")
	}
	if after, _ := os.ReadFile(path); !bytes.Contains(after, []byte("garbage")) {
		t.Error("it was cut off in the middle")
	}
}

func TestOneDamagedJournalStopsNoOtherCommand(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	dir := stateDir(h.settings.StateDir).run("20200101-000000-0000")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, journalName), []byte("garbage\n{}\n"), 0o600))
	if i := g.scan(); i.Verdict != VerdictIntact {
		t.Errorf("%s %v", i.Verdict, i.Reasons)
	}
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if _, err := h.engine().Runs(t.Context()); err != nil {
		t.Errorf("list the runs: %v", err)
	}
}

func TestTheFailpointIsReachedWhenTheRecordIsOnDisk(t *testing.T) {
	dir := t.TempDir()
	var seen []string
	j, _, err := openJournal(dir, func(point string) {
		records, err := readJournal(dir)
		if err != nil || len(records) == 0 || records[len(records)-1].Point() != point {
			t.Errorf("at %s the journal ends otherwise (%v)", point, err)
		}
		seen = append(seen, point)
	})
	must(t, err)
	defer j.Close()
	must(t, j.Write(Record{Step: "copy", Phase: PhaseBegin}, nil))
	must(t, j.Write(Record{Step: "copy", Phase: PhaseFailed, Error: "no"}, map[string]int{"n": 1}))
	if !slices.Equal(seen, []string{"copy.begin", "copy.failed"}) {
		t.Error(seen)
	}
}

// fullDir is a directory on a file system without a byte to spare, and a way to
// make room.
func fullDir(t testing.TB) (dir string, makeRoom func()) {
	t.Helper()
	dir = t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, func() { os.Remove(filepath.Join(dir, "ballast")) }
}

func fill(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	must(t, err)
	defer f.Close()
	for size := 16 << 10; size > 0; size /= 2 {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				break
			}
		}
	}
}

func TestARecordThatCanNotBeWrittenIsAnErrorAndDamagesNothing(t *testing.T) {
	dir, makeRoom := fullDir(t)
	j, _, err := openJournal(dir, nil)
	must(t, err)
	must(t, j.Write(Record{Step: "one", Phase: PhaseBegin}, nil))
	fill(t, dir)
	long := strings.Repeat("x", 8<<10)
	if err := j.Write(Record{Step: "two", Phase: PhaseBegin, Error: long}, nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full file system: %v", err)
	}
	makeRoom()
	must(t, j.Write(Record{Step: "three", Phase: PhaseBegin}, nil))
	must(t, j.Close())
	records, err := readJournal(dir)
	if err != nil || len(records) != 2 || records[1].Step != "three" {
		t.Errorf("%+v, %v", records, err)
	}
	if err := j.Write(Record{Step: "four", Phase: PhaseBegin}, nil); err == nil {
		t.Error("a closed journal takes records")
	}
}

// The journal's own file system is full: the worst moment for a guest to be
// suspended, and often the same disk.
func TestAGuestIsLetGoOnThoughTheJournalIsFull(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{agent: true})
	pid := h.hv.get(g.uuid).PID
	h.purge()
	s, err := h.engine().Prepare(t.Context(), CommandRescue, options(g))
	must(t, err)
	defer s.Close()
	h.hv.before = func(method, _ string) {
		if method == "suspend" {
			// From here on no record can be written.
			closed, err := os.Open(os.DevNull)
			must(t, err)
			s.journal.mu.Lock()
			s.journal.file = closed
			s.journal.mu.Unlock()
		}
	}
	if _, err := s.Execute(t.Context()); err == nil {
		t.Error("a run without a journal is no error")
	}
	must(t, g.asFound(StateRunning, pid))
	if d := h.hv.get(g.uuid); d.thawed == 0 {
		t.Error("it was not thawed")
	}
	if left := h.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

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
	whole, ok, err := planOf(all)
	if err != nil || !ok {
		t.Fatal(err)
	}
	var disk FilePlan
	for _, f := range whole.Instances[0].Files {
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

func TestAReportCanBeMadeAnewFromTheJournal(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	again, err := h.engine().RunReport(t.Context(), report.Run)
	must(t, err)
	if a, b := g.report(report), g.report(again); a.Outcome != b.Outcome || len(a.Steps) != len(b.Steps) || a.Bytes != b.Bytes {
		t.Errorf("%+v\n%+v", a, b)
	}
	if _, err := h.engine().RunReport(t.Context(), "19990101"); !errors.Is(err, ErrNoRun) {
		t.Errorf("a run that never was: %v", err)
	}
}

func TestTheStatusOfAnInterruptedRunNamesTheLastThingItDid(t *testing.T) {
	h := newHost(t)
	k := crashPoint(t, h, CommandRescue, func(g *guest) Options { return options(g) }, guestOptions{}, "suspend.begin", "")
	h = h.elsewhere(t)
	g := h.add(1, guestOptions{})
	h.purge()
	run, _ := h.crashAt(CommandRescue, options(g), k)
	status, err := h.engine().Run(t.Context(), run[:len(run)-2])
	must(t, err)
	if status.State != RunInterrupted || len(status.Instances) != 1 {
		t.Fatalf("%+v", status)
	}
	if i := status.Instances[0]; i.Last != "suspend.begin" || i.Outcome != "" {
		t.Errorf("%+v", i)
	}
	steps := status.Instances[0].Steps
	if last := steps[len(steps)-1]; last.Name != stepSuspend || last.State != PhaseBegin || last.Seconds != 0 {
		t.Errorf("%+v", last)
	}
	report, err := h.engine().RunReport(t.Context(), run)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, "resume "+run) {
		t.Errorf("%+v", r)
	}
}

func TestOnlyPublishedFilesOfThisBootProveAnything(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	must(t, os.Remove(g.base))
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if i := g.scan(); i.Verdict != VerdictIntact {
		t.Fatalf("%s %v", i.Verdict, i.Reasons)
	}
	path := filepath.Join(stateDir(h.settings.StateDir).run(report.Run), journalName)
	data, err := os.ReadFile(path)
	must(t, err)
	boot, err := bootID(procDir)
	must(t, err)
	must(t, os.WriteFile(path, bytes.ReplaceAll(data, []byte(boot), []byte("another-boot")), 0o600))
	if i := g.scan(); i.Verdict != VerdictConflict {
		t.Errorf("another boot's inode numbers still count: %s", i.Verdict)
	}
	must(t, os.WriteFile(path, data, 0o600))
	// The file was changed since: it is no proof any more.
	must(t, os.WriteFile(g.base, []byte("other"), 0o600))
	if i := g.scan(); i.Verdict != VerdictConflict {
		t.Errorf("a file that was changed since is still proven: %s", i.Verdict)
	}
}

func TestTheLockEndsWithWhatHoldsItAndNamesItBefore(t *testing.T) {
	s := stateDir(t.TempDir())
	must(t, s.make())
	if _, running := s.running(); running {
		t.Error("a run without a lock file")
	}
	f, err := s.lock(lockInfo{Run: "r1", Command: CommandBackup, PID: 7})
	must(t, err)
	_, err = s.lock(lockInfo{Run: "r2"})
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "r1") || !strings.Contains(err.Error(), "backup") {
		t.Errorf("%v", err)
	}
	if info, running := s.running(); !running || info.Run != "r1" || info.PID != 7 {
		t.Errorf("%+v %v", info, running)
	}
	must(t, f.Close())
	if _, running := s.running(); running {
		t.Error("it outlived its holder")
	}
	f, err = s.lock(lockInfo{Run: "r3"})
	must(t, err)
	defer f.Close()
	if info, _ := s.running(); info.Run != "r3" {
		t.Errorf("%+v", info)
	}
}

func TestARunIsFoundByTheBeginningOfItsName(t *testing.T) {
	s := stateDir(t.TempDir())
	must(t, s.make())
	for _, id := range []string{"20260101-000000-aaaa", "20260101-000000-aabb", "20260102-000000-cccc"} {
		must(t, os.Mkdir(s.run(id), 0o700))
	}
	for prefix, want := range map[string]string{
		"20260102":             "20260102-000000-cccc",
		"20260101-000000-aab":  "20260101-000000-aabb",
		"20260101-000000-aaaa": "20260101-000000-aaaa",
		"20260101":             "",
		"2027":                 "",
		"../runs/20260102":     "",
	} {
		got, err := s.find(prefix)
		if got != want || (want == "") != errors.Is(err, ErrNoRun) {
			t.Errorf("find(%q) = %q, %v", prefix, got, err)
		}
	}
}

func TestTheStateDirectoryIsClosedToOthers(t *testing.T) {
	s := stateDir(filepath.Join(t.TempDir(), "a/b"))
	must(t, os.MkdirAll(string(s), 0o755))
	must(t, os.Chmod(string(s), 0o755))
	must(t, s.make())
	for _, dir := range []string{string(s), s.runs()} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", dir, st.Mode(), err)
		}
	}
}

func FuzzReadRecords(f *testing.F) {
	f.Add([]byte(`{"seq":1,"step":"run","phase":"begin","data":{}}` + "\n" +
		`{"seq":2,"instance":"u","step":"copy","phase":"done","data":{"dir":"/d"}}` + "\n"))
	f.Add([]byte("{\"seq\":1}\n\x00\x00"))
	f.Add([]byte("x\n{}\n"))
	f.Add([]byte("{\"instance\":\"u\",\"step\":\"instance\",\"phase\":\"done\",\"data\":null}\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, length, err := readRecords(bytes.NewReader(data))
		if length < 0 || length > int64(len(data)) {
			t.Fatalf("%d of %d bytes", length, len(data))
		}
		if err == nil {
			// What was read is what is there when the rest is cut off.
			again, l, err := readRecords(bytes.NewReader(data[:length]))
			if err != nil || l != length || len(again) != len(records) {
				t.Fatalf("%d records of %d bytes, then %d of %d, %v", len(records), length, len(again), l, err)
			}
		}
		_, _ = statusOf("id", records)
		_, _ = priorsOf(records)
		_, _, _ = planOf(records)
	})
}

func TestPrepareLeavesNoTraceWhenItFails(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.purge()
	for name, c := range map[string]struct {
		change func(*host)
		o      Options
		want   error
	}{
		"a user of the owner table is missing": {
			change: func(h *host) { h.settings.Owners.Disk.User = "no-such-user" },
			o:      options(g),
			want:   ErrUnusable,
		},
		"nothing is selected": {change: func(*host) {}, o: Options{}, want: ErrUsage},
		"a selected instance is not here": {
			change: func(*host) {},
			o:      Options{Selection: Selection{Instances: []string{testUUID(9)}}},
			want:   ErrNothingSelected,
		},
		"no such project": {
			change: func(*host) {},
			o:      Options{Selection: Selection{Project: "p2"}},
			want:   ErrNothingSelected,
		},
		"the hypervisor does not answer": {
			change: func(h *host) { h.hv.errs["domains"] = ErrUnavailable },
			o:      options(g),
			want:   ErrUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			other := *h
			c.change(&other)
			s, err := other.engine().Prepare(t.Context(), CommandRescue, c.o)
			h.hv.errs = map[string]error{}
			if s != nil || !errors.Is(err, c.want) {
				t.Fatalf("%v", err)
			}
			if ids, _ := stateDir(h.settings.StateDir).list(); len(ids) > 0 {
				t.Errorf("left behind: %v", ids)
			}
			if n := g.pinned(); n != 0 {
				t.Errorf("%d pins left behind", n)
			}
		})
	}
}

func TestADryRunTouchesNothing(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	h.purge()
	whole, err := h.engine().DryRun(context.Background(), CommandRescue, options(g))
	must(t, err)
	if len(whole.Instances) != 1 || whole.Instances[0].Action != ActionReboot || len(whole.Instances[0].Steps) == 0 {
		t.Errorf("%+v", whole.Instances)
	}
	for _, dir := range []string{h.settings.StateDir, h.settings.InstancesPath} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v %v", dir, entries, err)
		}
	}
}
