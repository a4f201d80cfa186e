package render

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/runs"
)

func checked() check.Report {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	r := check.Report{Host: "cmp-7", Taken: at, Level: check.OK, Source: check.SourceGuard, Scanned: at.Add(-12 * time.Second),
		Verdicts: map[recover.Verdict]int{recover.VerdictLost: 1, recover.VerdictRecoverable: 1, recover.VerdictIntact: 22},
		Runs:     []runs.UnfinishedRun{{Run: "r2", State: recover.RunInterrupted}, {Run: "r1", State: recover.RunRunning}},
		Guard:    guard.Status{Running: true, PID: 77, Held: guard.Held{Files: 50, DeletedFiles: 3}},
		Keeper:   pin.KeeperStatus{Running: true, PID: 5}, Held: &check.HeldDeleted{Files: 3, Bytes: 4096}}
	for _, i := range scanned().Instances {
		if i.Verdict == recover.VerdictLost || i.Verdict == recover.VerdictRecoverable {
			r.Affected = append(r.Affected, i)
		}
	}
	r.Add(check.Finding{
		Level: check.Warning, Kind: check.FindingInterrupted, Text: "run r2 was interrupted", Next: "os-rescue resume r2",
	})
	r.Add(check.Finding{
		Level: check.Critical, Kind: check.FindingLost, Text: "2 of 24 instances have lost files", Next: "os-rescue --all --dry-run",
	})
	return r
}

func checkOptions() check.Options {
	return check.Options{Warning: 1, Critical: 3, CriticalHeld: 8192, MaxAge: 5 * time.Minute}
}

func TestACheckIsOneLineForMonitoringThenWhatToDo(t *testing.T) {
	text := plain()
	text.Again = "os-rescue --config /x"
	line := "OS-RESCUE CRITICAL: 2 of 24 instances have lost files; run r2 was interrupted | " +
		"'instances'=24;;;0 'lost'=2;0;2;0;24 'displaced'=0;0;;0;24 'unknown'=0;;;0;24 " +
		"'interrupted_runs'=1;0;;0 'half_done'=0;;0;0 'held_deleted'=4096B;;8192;0 'scan_age'=12s;300;;0"
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteCheck(b, text, checked(), checkOptions()) }), line+`
CRITICAL: 2 of 24 instances have lost files
  Next: os-rescue --config /x --all --dry-run
WARNING: run r2 was interrupted
  Next: os-rescue --config /x resume r2
instance-00000002  web  11111111-0000-4000-8000-000000000002  running, project shop: recoverable
  /i/2/disk: deleted, 3.0 GiB of 20 GiB, held by qemu-system-x86 200
  /i/_base/abc: deleted, 512 MiB, held by qemu-system-x86 200, qemu-system-x86 300
  /i/2/console.log: replaced, 4.0 KiB, held by virtlogd 50
  /i/2/disk.info: missing, -, held by nobody
  Why: 3 of its files were deleted, and all are still held
instance-00000003  evil?[2J  11111111-0000-4000-8000-000000000003  shutoff, project p3: lost
  /i/3/disk: missing, -, held by nobody
  Possible: restore it from a backup
Source: the guard (pid 77), which scanned 12 s earlier.
Run r1 is in progress.
The keeper (pid 5) holds 0 files.
The guard holds 50 files, 3 of them deleted.
`)
}

func TestTheLineOfACheck(t *testing.T) {
	finding := func(level check.Level, text string) check.Finding {
		return check.Finding{Level: level, Text: text}
	}
	intact, lost := map[recover.Verdict]int{recover.VerdictIntact: 1}, map[recover.Verdict]int{recover.VerdictLost: 1}
	for name, c := range map[string]struct {
		report check.Report
		adds   []check.Finding
		want   string
	}{
		"OK": {check.Report{Level: check.OK, Verdicts: intact}, nil,
			"OS-RESCUE OK: 1 instance, no lost files | 'instances'=1;;;0 'lost'=0;0;2;0;1 'displaced'=0;0;;0;1 'unknown'=0;;;0;1"},
		"nothing known": {check.Unmade("h", errFor("no libvirt\nat all | x")), nil,
			"OS-RESCUE UNKNOWN: no libvirt; at all ? x"},
		"below the thresholds": {check.Report{Level: check.OK, Verdicts: lost},
			[]check.Finding{finding(check.OK, "1 of 1 instance has lost files")},
			"OS-RESCUE OK: 1 of 1 instance has lost files | "},
		"many": {check.Report{},
			[]check.Finding{
				finding(check.Warning, "a"), finding(check.Warning, "b"), finding(check.Critical, "c"),
				finding(check.Warning, "d"), finding(check.Warning, "e"),
			},
			"OS-RESCUE CRITICAL: c; a; b; 2 more"},
		"long": {check.Report{}, []check.Finding{finding(check.Unknown, strings.Repeat("x", 500))},
			"OS-RESCUE UNKNOWN: " + strings.Repeat("x", inLine-1) + "…"},
		"runs only": {check.Report{Level: check.Unknown, Runs: []runs.UnfinishedRun{}}, nil,
			"OS-RESCUE UNKNOWN: 0 instances, no lost files | 'interrupted_runs'=0;0;;0 'half_done'=0;;0;0"},
	} {
		for _, f := range c.adds {
			c.report.Add(f)
		}
		out := written(t, func(b *bytes.Buffer) error { return WriteCheck(b, plain(), c.report, checkOptions()) })
		if line, _, _ := strings.Cut(out, "\n"); !strings.HasPrefix(line, c.want) || !strings.HasSuffix(c.want, " | ") && line != c.want {
			t.Errorf("%s: %q", name, line)
		}
	}
}

type errFor string

func (e errFor) Error() string { return string(e) }

func TestAFleetOfAffectedInstancesIsCutWhereMonitoringCutsIt(t *testing.T) {
	r := checked()
	for len(r.Affected) < 500 {
		r.Affected = append(r.Affected, r.Affected[0])
	}
	out := written(t, func(b *bytes.Buffer) error { return WriteCheck(b, plain(), r, checkOptions()) })
	if len(out) > 8000 || !regexp.MustCompile(`(?m)^4\d\d instances more: os-rescue scan$`).MatchString(out) {
		t.Errorf("%d bytes:\n%s", len(out), out)
	}
}

// perfdataForm is what the Monitoring Plugins guidelines say of performance data.
const perfdataForm = `^('[a-z_]+'=-?[0-9.]+(s|B)?;[0-9.]*;[0-9.]*;0(;[0-9]+)?( |$))*$`

func FuzzACheckIsFitForMonitoringUnderAnyNames(f *testing.F) {
	f.Add("web", "/i/disk", "os-rescue resume x")
	f.Add("a|b\nOS-RESCUE OK: fine | 'lost'=0", "\x1b[2J\r\n|", "'\u2028|")
	f.Fuzz(func(t *testing.T, name, path, text string) {
		if len(name)+len(path)+len(text) > 300 {
			t.Skip() // longer output is cut, which has a test of its own
		}
		r := checked()
		r.Affected[0].Name, r.Affected[0].Domain, r.Affected[0].ProjectName, r.Affected[0].UUID = name, name, name, name
		r.Affected[0].Files[0].Path, r.Affected[0].Files[0].Holders[0].Process = path, path
		r.Affected[0].Reasons, r.Affected[0].Possible = []string{text}, []string{text}
		r.Runs[1].Run = name
		r.Add(check.Finding{Level: check.Critical, Text: text + name, Next: "next " + text + path})
		lines := written(t, func(b *bytes.Buffer) error { return WriteCheck(b, plain(), r, checkOptions()) })
		line, rest, _ := strings.Cut(lines, "\n")
		said, perf, ok := strings.Cut(line, " | ")
		if !ok || !strings.HasPrefix(said, "OS-RESCUE CRITICAL: ") || !regexp.MustCompile(perfdataForm).MatchString(perf) {
			t.Errorf("the line is %q", line)
		}
		if strings.Contains(rest, "|") || strings.Contains(said, "|") || strings.Contains(rest, "\x1b") {
			t.Errorf("a | or a control character is in %q", lines)
		}
		if n := strings.Count(lines, "\n"); n != 21 {
			t.Errorf("%d lines:\n%s", n, lines)
		}
	})
}

func TestACheckAsJSONHasNoNullLists(t *testing.T) {
	out := written(t, func(b *bytes.Buffer) error { return JSON(b, check.Report{Affected: []recover.Instance{{}}}) })
	if strings.Contains(out, "null") || !strings.Contains(out, `"runs": []`) || !strings.Contains(out, `"findings": []`) {
		t.Error(out)
	}
}
