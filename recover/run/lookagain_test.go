package run_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// atDestroy calls do when the run destroys a domain: after its last look at it.
func atDestroy(h *runtest.Host, do func()) {
	h.HV.Before = func(method, _ string) {
		if method == "destroy" {
			do()
		}
	}
}

func TestWhatAGuestWritesBetweenTheLastLookAndItsEndIsPublished(t *testing.T) {
	for name, write := range map[string]struct {
		off  int
		data string
	}{
		"a few bytes":            {10, "written by somebody's virsh resume"},
		"where there was a hole": {60 << 10, "written"},
		"behind the end":         {200 << 10, "written in closing the image"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
			disk := g.Opened(t)
			h.Purge()
			atDestroy(h, func() { g.Writes(t, disk, write.off, write.data) })
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(r.Notes, "\n"), "after the last look") {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
		})
	}
}

// A person has copied the disk by hand, and QEMU writes refcounts when it closes the image.
func TestAnEqualFileThatQEMUsEndWouldLeaveBehindIsNotKept(t *testing.T) {
	for _, replace := range []bool{false, true} {
		t.Run(fmt.Sprintf("--replace-existing=%v", replace), func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{NoNova: true, State: recover.StateShutOff})
			recovertest.Must(t, os.Remove(g.Disk))
			recovertest.CreateQcow2(t, "-o", "lazy_refcounts=on", g.Disk, "1M")
			data, err := os.ReadFile(g.Disk)
			recovertest.Must(t, err)
			g.Content[g.Disk] = data
			h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Disks[0].Chain[0].Format = "qcow2" })
			recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
			pid, disk := h.HV.Get(g.UUID).PID, g.Opened(t)
			h.Purge()
			recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
			recovertest.Must(t, os.WriteFile(g.Disk, data, 0o600))
			o := recovertest.Options(g)
			o.ReplaceExisting = replace
			atDestroy(h, func() { g.Writes(t, disk, 512<<10, "refcounts") })
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if replace {
				if r.Outcome != recover.OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				return
			}
			if r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "would be older") {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
		})
	}
}

func TestNothingIsReadASecondTimeWhereNothingWasWritten(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	points := runtest.Points(h.Journal(report.Run))
	looked := slices.Index(points, "look-again.begin")
	if looked < 0 || points[looked+1] != "look-again.done" || points[looked-1] != "destroy.done" {
		t.Errorf("the look: %v", points)
	}
	if r := g.Report(report); len(r.Notes) > 0 {
		t.Errorf("notes: %q", r.Notes)
	}
}

// The guest writes in the destroy, and the run is killed at every record from there on.
func TestWhatAGuestWroteLastSurvivesAKillAtEveryJournalPoint(t *testing.T) {
	t.Parallel()
	first := runtest.NewHost(t)
	for k := crashPoint(t, first, recovertest.GuestOptions{Base: "b"}, "destroy.done"); ; k++ {
		h := first.Elsewhere(t)
		g := h.Add(k, recovertest.GuestOptions{Base: fmt.Sprint("b", k)})
		disk := g.Opened(t)
		h.Purge()
		atDestroy(h, func() { g.Writes(t, disk, 5000, "the last word") })
		run, point := h.CrashAt(recover.CommandRescue, recovertest.Options(g), k)
		if run == "" {
			break
		}
		h.HV.Before = nil
		where := fmt.Sprintf("%d %s", k, point)
		if point == "run.done" {
			continue
		}
		report, err := h.Resume(t.Context(), run)
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%s: %+v", where, r)
		}
		if err := g.Serving(recover.StateRunning); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		if left := h.Staged(); len(left) > 0 || g.Pinned() > 0 {
			t.Errorf("%s: left behind: %v, %d pins", where, left, g.Pinned())
		}
		h.HV.EndAll()
	}
}

// The host is booted while a copy is brought up to date, and nobody has the inode any more.
// What has changed is beside the copy; where that is damaged no guest is started on half of each.
func TestACopyThatWasJustBroughtUpIsCompletedAfterABoot(t *testing.T) {
	t.Parallel()
	for name, befalls := range map[string]func(t *testing.T, place string){
		"as it was":          func(*testing.T, string) {},
		"half of it written": func(t *testing.T, place string) { writeAt(t, place, 5000, "the la") },
		"the patch is gone":  func(t *testing.T, place string) { recovertest.Must(t, os.Remove(place+".patch")) },
		"a torn patch":       func(t *testing.T, place string) { recovertest.Must(t, os.Truncate(place+".patch", 20)) },
		"a flipped patch":    func(t *testing.T, place string) { writeAt(t, place+".patch", 100, "\xff") },
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			disk := g.Opened(t)
			h.Purge()
			atDestroy(h, func() { g.Writes(t, disk, 5000, "the last word") })
			run := crashAtPoint(h, recover.CommandRescue, recovertest.Options(g), "update.begin")
			h.HV.Before = nil
			recovertest.Must(t, disk.Close())
			h.KillKeeper()
			place := stagedDisk(t, h)
			befalls(t, place)
			report, err := h.Resume(t.Context(), run)
			recovertest.Must(t, err)
			r := g.Report(report)
			if name == "as it was" || name == "half of it written" {
				if r.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(r.Notes, "\n"), "its patch") {
					t.Fatalf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				if left := h.Staged(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "Nobody holds "+g.Disk) ||
				!strings.Contains(r.Error, "may be incomplete, is "+place) {
				t.Errorf("%+v", r)
			}
			if _, err := os.Lstat(g.Disk); err == nil || len(h.Staged()) == 0 {
				t.Errorf("published: %v, staged: %v", err == nil, h.Staged())
			}
			isFinished(t, h, run)
		})
	}
}

// What is held can't be read after QEMU's end: its disk fails. The proof of the copy stands.
func TestACopyStaysProvenWhenItsInodeCanNotBeReadAgain(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	disk := g.Opened(t)
	h.Purge()
	full := errors.New("")
	atDestroy(h, func() {
		g.Writes(t, disk, 5000, "the last word")
		full = os.Mkdir(stagedDisk(t, h)+".patch", 0o700) // no file can be made there: as good as EIO
	})
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, errors.Join(err, full))
	place := stagedDisk(t, h)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "proven and on disk: "+place) {
		t.Fatalf("%+v", r)
	}
	if points := runtest.Points(h.Journal(report.Run)); slices.Contains(points, "update.begin") {
		t.Errorf("its proof was given up: %v", points)
	}
	h.HV.Before = nil
	recovertest.Must(t, os.Remove(place+".patch"))
	report, err = h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

// Somebody has let the guest go on after the last look, and it says something on its console.
func TestWhatTheConsoleSaysAfterTheLastLookIsPublished(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
	log, err := os.OpenFile(g.Console, os.O_WRONLY|os.O_APPEND, 0)
	recovertest.Must(t, err)
	defer log.Close()
	h.Purge()
	atDestroy(h, func() {
		_, err := log.WriteString("the last word\n")
		recovertest.Must(t, err)
	})
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	said, err := os.ReadFile(g.Console)
	recovertest.Must(t, err)
	if want := string(g.Content[g.Console]) + "the last word\n"; string(said) != want {
		t.Errorf("its log is %q, not %q", said, want)
	}
}

func writeAt(t *testing.T, path string, off int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	recovertest.Must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte(text), off)
	recovertest.Must(t, err)
}

// A block job that nobody told the run of writes to a backing file whose copy is at its path.
func TestABackingFileThatWasWrittenAfterItWasPutBackKeepsTheGuestOff(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	base, err := os.OpenFile(g.Base, os.O_RDWR, 0)
	recovertest.Must(t, err)
	defer base.Close()
	h.Purge()
	atDestroy(h, func() {
		_, err := base.WriteAt([]byte("committed"), 100)
		recovertest.Must(t, err)
	})
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, g.Base) || !strings.Contains(r.Error, "older") {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.Error, "proven and on disk: ") || !strings.Contains(r.Error, "held until this host goes down: "+g.Base) {
		t.Errorf("what is safe: %s", r.Error)
	}
	if _, err := os.Lstat(g.Disk); err == nil {
		t.Error("the disk was published")
	}
	if h.HV.Called("start", g.UUID) != 1 || g.Pinned() == 0 {
		t.Errorf("started, or let go (%d pins)", g.Pinned())
	}
}

func TestAFileThatWasKeptAtItsPathAndIsOlderByNowIsNotStartedOn(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	disk := g.Opened(t)
	byHand := slices.Clone(g.Content[g.Disk])
	h.Purge()
	recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
	recovertest.Must(t, os.WriteFile(g.Disk, byHand, 0o600))
	atDestroy(h, func() { g.Writes(t, disk, 5000, "the last word") })
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	r := g.Report(report)
	if r.Outcome == recover.OutcomeRescued || !strings.Contains(r.Error, recover.ErrConflict.Error()) ||
		strings.Contains(r.Error, "on disk: "+g.Disk) {
		t.Fatalf("%+v", r)
	}
	h.HV.Before = nil
	recovertest.Must(t, os.Rename(g.Disk, g.Disk+".old"))
	report, err = h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

// Its counters said that the guest had written nothing since the backup; then it did.
func TestARestoreTakesWhatTheGuestWroteAfterTheLastLook(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"", "look-again.begin", "look-again.done", "publish.begin"} {
		t.Run(point, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{})
			disk := g.Opened(t)
			dir, _ := backUp(h, t, nil, g)
			h.Purge()
			atDestroy(h, func() { g.Writes(t, disk, 5000, "the last word") })
			o := recovertest.Options(g)
			o.BackupDir = dir
			var report recover.RunReport
			var err error
			if point == "" {
				report, err = h.Run(t.Context(), recover.CommandRestore, o)
			} else {
				run := crashAtPoint(h, recover.CommandRestore, o, point)
				h.HV.Before = nil
				report, err = h.Resume(t.Context(), run)
			}
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
		})
	}
}

// A run was killed after the destroy, and the host booted: its copy is all that there is.
func TestACopyWithoutASourceIsVerifiedBeforeItIsPublished(t *testing.T) {
	t.Parallel()
	flip := func(t *testing.T, f *os.File, size int64) {
		_, err := f.WriteAt([]byte("\xff"), size/3)
		recovertest.Must(t, err)
	}
	for name, change := range map[string]func(t *testing.T, f *os.File, size int64){
		"unchanged": func(*testing.T, *os.File, int64) {},
		"one byte":  flip,
		"zeros": func(t *testing.T, f *os.File, size int64) {
			recovertest.Must(t, f.Truncate(0))
			recovertest.Must(t, f.Truncate(size))
		},
		"longer":       func(t *testing.T, f *os.File, size int64) { recovertest.Must(t, f.Truncate(size+4096)) },
		"shorter":      func(t *testing.T, f *os.File, size int64) { recovertest.Must(t, f.Truncate(size-4096)) },
		"of old times": nil, // a journal that has no digests
	} {
		t.Run(name, func(t *testing.T) {
			h, g, run := crashed(t, recovertest.GuestOptions{Base: "b", Console: true}, "look-again.done")
			if change == nil {
				recovertest.Must(t, withoutProofs(h, run))
				change = flip
			}
			h.KillKeeper()
			place := stagedDisk(t, h)
			f, err := os.OpenFile(place, os.O_RDWR, 0)
			recovertest.Must(t, err)
			defer f.Close()
			change(t, f, int64(len(g.Content[g.Disk])))
			report, err := h.Resume(t.Context(), run)
			recovertest.Must(t, err)
			r := g.Report(report)
			switch name {
			case "unchanged":
				if r.Outcome != recover.OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				return
			case "of old times":
				if r.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(r.Notes, "\n"), "could not be verified") {
					t.Errorf("%+v", r)
				}
				return
			}
			if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, place) ||
				strings.Contains(r.Error, "No data is lost") || strings.Contains(r.Error, "on disk: "+place) {
				t.Errorf("%+v", r)
			}
			if _, err := os.Lstat(place); err != nil {
				t.Errorf("the copy was not kept: %v", err)
			}
			if _, err := os.Lstat(g.Disk); err == nil || h.HV.Called("start", g.UUID) != 1 {
				t.Error("it was published, or started")
			}
			isFinished(t, h, run)
		})
	}
}

// crashAtPoint crashes a run at the first record of that point.
func crashAtPoint(h *runtest.Host, command recover.Command, o recover.Options, point string) string {
	h.T.Helper()
	name, _ := h.CrashIn(command, o, func(e *run.Engine, here func(string)) {
		e.Failpoint = func(now string) {
			if now == point {
				here(now)
			}
		}
	})
	if name == "" {
		h.T.Fatal("no record " + point)
	}
	return name
}

// stagedDisk is the path of the only staged copy of a disk.
func stagedDisk(t *testing.T, h *runtest.Host) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(h.Settings.InstancesPath, recover.StagePrefix+"*", "*.disk.*"))
	recovertest.Must(t, err)
	found = slices.DeleteFunc(found, func(path string) bool {
		return strings.Contains(path, recover.DiskInfoName) || strings.HasSuffix(path, ".patch")
	})
	if len(found) != 1 {
		t.Fatalf("staged: %v", found)
	}
	return found[0]
}

// withoutProofs makes a run's journal one of a release that noted no digests.
func withoutProofs(h *runtest.Host, run string) error {
	path := filepath.Join(h.State().Run(run), journal.FileName)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data = recovertest.OldJournal(data)
	for _, field := range []string{`"sha256":`, `"mtime":`} {
		for {
			at := bytes.Index(data, []byte(field))
			if at < 0 {
				break
			}
			end := at + bytes.IndexAny(data[at:], ",}")
			if data[end] == ',' {
				end++
			} else {
				at--
			}
			data = slices.Delete(data, at, end)
		}
	}
	// The size of a proof is what tells that there is one.
	lines := bytes.Split(data, []byte("\n"))
	for n, line := range lines {
		if bytes.Contains(line, []byte(`"step":"copy"`)) || bytes.Contains(line, []byte(`"step":"compare"`)) {
			lines[n] = bytes.ReplaceAll(line, []byte(`"size":`), []byte(`"unknown":`))
		}
	}
	return os.WriteFile(path, bytes.Join(lines, []byte("\n")), 0o600)
}

// Somebody who is root writes to a copy after it was proven. It is not what the guest is
// started on, and what it was copied from is still held.
func TestACopyThatWasWrittenToAfterItsProofIsNotPublished(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	atDestroy(h, func() {
		for _, staged := range h.Staged() {
			if strings.Contains(staged, "."+filepath.Base(g.Disk)+".") {
				f, err := os.OpenFile(staged, os.O_WRONLY, 0)
				recovertest.Must(t, err)
				_, err = f.WriteAt([]byte("not the guest's"), 5000)
				recovertest.Must(t, err)
				recovertest.Must(t, f.Close())
			}
		}
	})
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "was written to after it was proven") ||
		!strings.Contains(r.Error, "No data is lost; held until this host goes down: ") {
		t.Fatalf("%+v", r)
	}
	if _, err := os.Lstat(g.Disk); err == nil {
		t.Error("it was published")
	}
	h.HV.Before = nil
	report, err = h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("the resume: %+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}
