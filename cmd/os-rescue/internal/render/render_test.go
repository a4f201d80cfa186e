package render

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/pin"
)

const gib = 1 << 30

func plain() Text { return Text{Again: "os-rescue"} }

// everything are the options of a run with --all.
func everything() recover.Options { return recover.Options{Selection: recover.Selection{All: true}} }

// written returns what write writes.
func written(t *testing.T, write func(*bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func golden(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got); diff != "" {
		t.Errorf("wanted (-), got (+):\n%s", diff)
	}
}

func held(pid int, process string) []recover.Holder {
	return []recover.Holder{{PID: pid, FD: 17, Process: process}, {PID: pid, FD: 18, Process: process}}
}

func scanned() recover.Report {
	return recover.Report{Host: "cmp-7", Instances: []recover.Instance{
		{UUID: "11111111-0000-4000-8000-000000000001", Domain: "instance-00000001", Name: "db", ProjectName: "shop", PID: 100,
			State: "running", Verdict: recover.VerdictIntact,
			Files: []recover.File{{Path: "/i/1/disk", Role: recover.RoleDisk, State: recover.FilePresent, Allocated: gib, Size: gib}}},
		{UUID: "11111111-0000-4000-8000-000000000002", Domain: "instance-00000002", Name: "web", ProjectName: "shop", PID: 200,
			State: "running", Verdict: recover.VerdictRecoverable,
			Reasons: []string{"3 of its files were deleted, and all are still held"},
			Files: []recover.File{
				{Path: "/i/2/disk", Role: recover.RoleDisk, Target: "vda", State: recover.FileDeleted,
					Allocated: 3 * gib, Size: 20 * gib, Writable: true, Holders: held(200, "qemu-system-x86")},
				{Path: "/i/_base/abc", Role: recover.RoleBacking, State: recover.FileDeleted, Allocated: gib / 2, Size: gib / 2,
					Holders: append(held(200, "qemu-system-x86"), held(300, "qemu-system-x86")...)},
				{Path: "/i/2/console.log", Role: recover.RoleConsoleLog, State: recover.FileReplaced, Allocated: 4096, Size: 4096,
					Holders: held(50, "virtlogd"), Reason: "a new file of the same size stands there"},
				{Path: "/i/2/disk.info", Role: recover.RoleDiskInfo, State: recover.FileMissing},
			}},
		{UUID: "11111111-0000-4000-8000-000000000003", Domain: "instance-00000003", Name: "evil\x1b[2J", ProjectID: "p3",
			State: "shutoff", Verdict: recover.VerdictLost,
			Possible: []string{"restore it from a backup"},
			Files:    []recover.File{{Path: "/i/3/disk", Role: recover.RoleDisk, State: recover.FileMissing}}},
		{UUID: "11111111-0000-4000-8000-000000000004", Domain: "pet", State: "running", Verdict: recover.VerdictUnaffected},
	}}
}

func TestAScanIsATableTheWorstFirstWithReasonsAndWhatToDoNext(t *testing.T) {
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteScan(b, plain(), scanned()) }), `
cmp-7  4 instances, 1 lost, 1 recoverable, 1 intact, 1 unaffected

DOMAIN             NAME      PROJECT  STATE    VERDICT      AFFECTED                                      SIZE
instance-00000003  evil?[2J  p3       shutoff  lost         disk                                             -
instance-00000002  web       shop     running  recoverable  disk vda, backing, console log, disk.info  3.5 GiB
instance-00000001  db        shop     running  intact       -                                                -
pet                -         -        running  unaffected   -                                                -

instance-00000003  evil?[2J  11111111-0000-4000-8000-000000000003  lost
  FILE       ROLE  STATE    SIZE  HELD BY
  /i/3/disk  disk  missing     -  nobody
  Possible: restore it from a backup

instance-00000002  web  11111111-0000-4000-8000-000000000002  recoverable
  FILE              ROLE         STATE                  SIZE  HELD BY
  /i/2/disk         disk         deleted   3.0 GiB of 20 GiB  qemu-system-x86 200
  /i/_base/abc      backing      deleted             512 MiB  qemu-system-x86 200, qemu-system-x86 300
  /i/2/console.log  console-log  replaced            4.0 KiB  virtlogd 50
  /i/2/disk.info    disk-info    missing                   -  nobody
  /i/2/console.log: a new file of the same size stands there
  Why: 3 of its files were deleted, and all are still held

Until they are rescued, do not stop, reboot, migrate or delete these instances, neither here nor in
the dashboard: their data exists only as long as the processes that hold it run.
Next, see what a rescue would do: os-rescue --all --dry-run
`)
}

func TestTheLastLineOfAScanSaysWhatToDo(t *testing.T) {
	for _, c := range []struct {
		verdict recover.Verdict
		want    string
	}{
		{recover.VerdictRecoverable, "Next, see what a rescue would do: os-rescue --config /x --all --dry-run"},
		{recover.VerdictConflict, "Next, see what a rescue would do: os-rescue --config /x --all --dry-run"},
		{recover.VerdictLost, "No process of this host holds the lost files any more: see above what is still possible."},
		{recover.VerdictUnknown, "Next, scan again: os-rescue --config /x scan"},
		{recover.VerdictDisplaced, "Displaced files are not deleted: put them, or the mount, back where they belong."},
		{recover.VerdictIntact, "Nothing is lost: there is nothing to do."},
		{recover.VerdictUnaffected, "Nothing is lost: there is nothing to do."},
	} {
		report := recover.Report{Host: "h", Instances: []recover.Instance{{Domain: "d", UUID: "u", Verdict: c.verdict}}}
		text := written(t, func(b *bytes.Buffer) error { return WriteScan(b, Text{Again: "os-rescue --config /x"}, report) })
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if got := lines[len(lines)-1]; got != c.want {
			t.Errorf("%s: the last line is %q, want %q", c.verdict, got, c.want)
		}
	}
	next := []recover.Divergence{{Target: "vda", Open: "/i/snap", Next: "/i/disk", Writable: true}}
	for state, want := range map[recover.FileState]string{
		recover.FilePresent:  "Do not stop or reboot 1 instance: it would come back on another file, or not at all. See above what cures it.",
		recover.FileDeleted:  "Next, see what a rescue would do: os-rescue --all --dry-run",
		recover.FileReplaced: "Next, see what a rescue would do: os-rescue --all --dry-run",
	} {
		report := recover.Report{Host: "h", Instances: []recover.Instance{{Domain: "d", UUID: "u", Verdict: recover.VerdictConflict,
			NextStart: next, Files: []recover.File{{Path: "/i/snap", Role: recover.RoleDisk, State: state}}}}}
		text := written(t, func(b *bytes.Buffer) error { return WriteScan(b, plain(), report) })
		if !strings.HasSuffix(text, want+"\n") {
			t.Errorf("it would start on another file, and its disk is %s: %q does not end with %q", state, text, want)
		}
	}
	const uuid = "11111111-0000-4000-8000-000000000001"
	kernel := recover.Divergence{Target: "kernel", Next: "/i/" + uuid + "/kernel", By: []recover.Starter{recover.StarterLibvirt}}
	booted := recover.Instance{Domain: "d", UUID: uuid, Verdict: recover.VerdictConflict, NextStart: []recover.Divergence{kernel},
		Files: []recover.File{{Path: "/i/" + uuid + "/disk", Role: recover.RoleDisk, State: recover.FilePresent}}}
	fetched := written(t, func(b *bytes.Buffer) error {
		return WriteScan(b, plain(), recover.Report{Host: "h", Instances: []recover.Instance{booted}})
	})
	if strings.Contains(fetched, "Do not stop") || !strings.HasSuffix(fetched, "\nNext: os-rescue reboot --instance "+uuid+"\n") {
		t.Errorf("its kernel is missing: %q", fetched)
	}
	unusable := recover.Instance{Domain: "d", Verdict: recover.VerdictConflict,
		Files: []recover.File{{Path: "/i/u/disk", State: recover.FileUnknown, Remedy: recover.RemedyReplace}}}
	said := written(t, func(b *bytes.Buffer) error {
		return WriteScan(b, plain(), recover.Report{Host: "h", Instances: []recover.Instance{unusable}})
	})
	if !strings.HasSuffix(said, "Do not start 1 instance: a file that it needs is no disk any more. See above what brings it back.\n") {
		t.Errorf("its disk is empty: %q", said)
	}
	wrong := recover.Directory{Path: "/i/_base", Mode: 0o700, Want: "nova:nova 0755"}
	intact := recover.Instance{Domain: "d", Verdict: recover.VerdictIntact, Directories: []recover.Directory{wrong}}
	got := written(t, func(b *bytes.Buffer) error {
		return WriteScan(b, plain(), recover.Report{Host: "h", Instances: []recover.Instance{intact, intact}})
	})
	if !strings.HasSuffix(got, `

/i/_base is 0:0 0700, and should be nova:nova 0755.
No file is lost by that, but Nova may fail to write there. A run sets it right, and pauses nobody for it.
Next, see what a run would do: os-rescue --all --dry-run
`) {
		t.Errorf("two instances of one directory that is root's: %q", got)
	}
	got = written(t, func(b *bytes.Buffer) error { return WriteScan(b, plain(), recover.Report{Host: "h"}) })
	if got != "h  0 instances\n\nNothing is lost: there is nothing to do.\n" {
		t.Errorf("a host without instances: %q", got)
	}
}

func TestWhereLibvirtDoesNotKnowAWriterNothingIsCalledSafe(t *testing.T) {
	foreign := []recover.Foreign{{Path: "/i/u/disk", PID: 7, FD: 9, Process: "qemu-system-x86", UUID: "u", Size: 1 << 20}}
	got := written(t, func(b *bytes.Buffer) error {
		return WriteScan(b, plain(), recover.Report{Host: "h", Foreign: foreign})
	})
	named := strings.Contains(got, "/i/u/disk  1.0 MiB, open as /proc/7/fd/9 (qemu-system-x86, instance u)")
	if strings.Contains(got, "Nothing is lost") || !named || !strings.Contains(got, "--holder PID") {
		t.Error(got)
	}
}

func TestAScanSaysWhatKeepsNovaComputeFromStarting(t *testing.T) {
	fault := recover.ComputeIDFault{Path: "/n/compute_id", UUID: "u", Copy: "/s/copy"}
	scan := func() string {
		return written(t, func(b *bytes.Buffer) error {
			return WriteScan(b, plain(), recover.Report{Host: "h", ComputeID: &fault})
		})
	}
	if text := scan(); !strings.Contains(text, "/n/compute_id is missing") || !strings.Contains(text, "A run puts it back") ||
		!strings.HasSuffix(text, "--all --dry-run\n") {
		t.Errorf("missing:\n%s", text)
	}
	fault.Problem = "/n/compute_id holds v"
	if text := scan(); !strings.Contains(text, "holds v") || !strings.Contains(text, "/s/copy") || strings.Contains(text, "puts it back") {
		t.Errorf("another one:\n%s", text)
	}
}

func TestColoursAreOnlyThereWhenAskedFor(t *testing.T) {
	for _, color := range []bool{false, true} {
		s := Text{Color: color, Again: "os-rescue"}
		all := written(t, func(b *bytes.Buffer) error {
			return errors.Join(
				WriteScan(b, s, scanned()),
				WritePlan(b, s, planned()),
				WriteRun(b, s, ran(), everything()),
				WriteStatus(b, s, stood()),
				WriteOverview(b, s, Overview{Runs: []recover.RunStatus{stood()}}),
			)
		})
		if got := strings.Contains(all, "\x1b["); got != color {
			t.Errorf("with Color %v: escape sequences are there: %v", color, got)
		}
	}
}

func planned() recover.Plan {
	return recover.Plan{Run: "r1", Command: recover.CommandRescue, Mode: "reboot", Host: "cmp-7", OneByOne: true,
		Options: recover.Options{Offline: true},
		Space: []recover.SpacePlan{
			{Path: "/i", Need: 4 * gib, Free: 5 * gib, Headroom: 2 * gib},
			{Path: "/xfs", Need: gib, Free: gib, Headroom: gib, Clones: true},
		},
		Instances: []recover.InstancePlan{
			{UUID: "u1", Domain: "instance-00000001", Action: recover.ActionNone},
			{UUID: "u2", Domain: "instance-00000002", Name: "web", Action: recover.ActionReboot, Found: "running",
				Steps: []string{"suspend it", "copy /i/2/disk", "destroy the domain"},
				Files: []recover.FilePlan{
					{Path: "/i/2/disk", Role: recover.RoleDisk, Size: 20 * gib, Allocated: 3 * gib},
					{Path: "/i/2/console.log", Role: recover.RoleConsoleLog, Size: 4096, Allocated: 4096, Occupied: true},
					{Path: "/i/2/disk.info", Role: recover.RoleDiskInfo, Size: 40, Content: "{}"},
				}},
			{UUID: "u3", Domain: "instance-00000003", Action: recover.ActionRefuse, Refusal: "it is migrating"},
			{UUID: "u4", Domain: "instance-00000004", Action: recover.ActionPutBack, Found: "running",
				Files: []recover.FilePlan{{Path: "/i/_base/a", Role: recover.RoleBacking, Size: gib, Allocated: gib}}},
		}}
}

func TestAPlanSaysWhatWillHappenInOrderAndWhatIsLeftAlone(t *testing.T) {
	golden(t, written(t, func(b *bytes.Buffer) error { return WritePlan(b, plain(), planned()) }), `
Plan of a rescue on cmp-7, mode reboot, without Nova

instance-00000002  web  u2
  pause, copy, verify, destroy, put back, start (found running); 3.0 GiB to copy
    1. suspend it
    2. copy /i/2/disk
    3. destroy the domain
  FILE              ROLE                      SIZE
  /i/2/disk         disk         3.0 GiB of 20 GiB
  /i/2/console.log  console-log            4.0 KiB  a newer file is in its place
  /i/2/disk.info    disk-info                 40 B  created anew

instance-00000003  u3
  left alone: it is migrating

instance-00000004  u4
  put back while it runs, with no pause (found running); 1.0 GiB to copy
  FILE        ROLE        SIZE
  /i/_base/a  backing  1.0 GiB

Nothing to do for 1 instance: instance-00000001

FILE SYSTEM OF   NEEDED     FREE  KEPT FREE
/i              4.0 GiB  5.0 GiB    2.0 GiB  too little for all at once
/xfs            1.0 GiB  1.0 GiB    1.0 GiB  copies are clones, which take no space
Not everything fits at once: one instance follows the other, and its old files are released before the next.

In total: 1 instance paused, destroyed and started, 1 instance put back with no pause, 1 instance left alone, 1 instance intact.
`)
}

func ran() recover.RunReport {
	start := time.Date(2026, 11, 22, 18, 4, 0, 0, time.UTC)
	return recover.RunReport{Run: "20261122-180400-ab12", Command: "rescue", Host: "cmp-7",
		Started: start, Finished: start.Add(75 * time.Second),
		Instances: []recover.InstanceReport{
			{UUID: "u1", Domain: "instance-00000001", Outcome: recover.OutcomeIntact},
			{UUID: "u2", Domain: "instance-00000002", Name: "web", Outcome: recover.OutcomeRescued,
				PauseSeconds: 3.44, DowntimeSeconds: 14.2, Bytes: 3 * gib, Notes: []string{"no guest agent answered: not frozen"}},
			{UUID: "u3", Domain: "instance-00000003", Outcome: recover.OutcomeSkipped,
				Error: "refused: it is migrating, and that may take a good while to end. Nothing was touched. Run it again later"},
		}}
}

func TestTheResultOfARunIsATableThenEveryErrorInFullThenTheSum(t *testing.T) {
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteRun(b, plain(), ran(), everything()) }), `
INSTANCE           NAME  OUTCOME  PAUSED  DOWN   COPIED  NOTE
instance-00000001  -     intact        -     -        -
instance-00000002  web   rescued   3.4 s  14 s  3.0 GiB  see below
instance-00000003  -     skipped       -     -        -  see below

instance-00000002  web  u2
  Note: no guest agent answered: not frozen

instance-00000003  u3
  skipped: refused: it is migrating, and that may take a good while to end. Nothing was touched. Run it again later

1 rescued, 1 intact, 1 skipped in 1 min 15 s. Run 20261122-180400-ab12.
`)
}

func TestTheTotalNamesWhatTheCommandDid(t *testing.T) {
	for command, want := range map[recover.Command]string{
		recover.CommandRescue:  "1 rescued.",
		recover.CommandBackup:  "1 backed up.",
		recover.CommandRestore: "1 restored.",
		recover.CommandReboot:  "1 rebooted.",
	} {
		r := recover.RunReport{Command: command, Instances: []recover.InstanceReport{{Outcome: recover.OutcomeRescued}}}
		if got := runSum(r); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

func TestAnInterruptedRunSaysWhereToLook(t *testing.T) {
	r := ran()
	r.Interrupted = true
	got := written(t, func(b *bytes.Buffer) error { return WriteRun(b, plain(), r, everything()) })
	if !strings.Contains(got, "interrupted") || !strings.Contains(got, "os-rescue status 20261122-180400-ab12") {
		t.Error(got)
	}
}

func stood() recover.RunStatus {
	start := time.Date(2026, 11, 22, 18, 4, 0, 0, time.UTC)
	return recover.RunStatus{Run: "r1", Command: recover.CommandRescue, Host: "cmp-7", Started: start, State: recover.RunInterrupted,
		Instances: []recover.InstanceStatus{
			{UUID: "u1", Domain: "instance-00000001", Name: "web", Outcome: recover.OutcomeRescued, Steps: []recover.StepStatus{
				{Name: "copy", Path: "/i/1/disk", Started: start, Seconds: 2.5, State: recover.PhaseDone},
				{Name: "check", Path: "/i/1/disk", Started: start, Seconds: 0.5, State: recover.PhaseFailed, Error: "leaks"},
			}},
			{UUID: "u2", Domain: "instance-00000002", Steps: []recover.StepStatus{
				{Name: "copy", Path: "/i/2/disk", Started: start, State: recover.PhaseBegin},
			}},
		}}
}

func TestTheStatusOfARunListsItsInstancesAndTheirSteps(t *testing.T) {
	at := when(stood().Started)
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteStatus(b, plain(), stood()) }), fmt.Sprintf(`
r1  rescue on cmp-7, started %[1]s, interrupted

instance-00000001  web  u1  rescued
  STEP   BEGAN                  TOOK  STATE   FILE
  copy   %[1]s   2.5 s  done    /i/1/disk
  check  %[1]s  500 ms  failed  /i/1/disk
  check: leaks

instance-00000002  u2  not finished
  STEP  BEGAN                TOOK  STATE  FILE
  copy  %[1]s     -  begun  /i/2/disk

Next, finish it: os-rescue resume r1
If it can't be finished, end it as it is: os-rescue resume --abandon r1
`, at))
}

func TestKeepersThatNoJournalClaimsAreNamedWithWhatTheyHold(t *testing.T) {
	at := when(stood().Started)
	hold := func(by string, unclaimed bool) []pin.KeeperHold {
		return []pin.KeeperHold{{Instances: []string{"u1"}, Path: "/i/1/disk", Size: gib, Since: stood().Started,
			PID: 80, PinnedBy: by, Unclaimed: unclaimed}}
	}
	k := pin.KeeperStatus{Running: true, PID: 77, Holds: append(hold("r1", false), hold("r0", true)...), Others: []pin.OtherKeeper{
		{PID: 78, StateDir: "/s", Own: true, Silent: true, Holds: hold("", true)},
		{PID: 79, StateDir: "/elsewhere", Apart: true, Holds: []pin.KeeperHold{}},
	}}
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteUnclaimedHolds(b, plain(), k) }), fmt.Sprintf(`

Held by the keeper (pid 77 80) for runs of which this state directory has no journal:
  FILE          SIZE  SINCE                FOR
  /i/1/disk  1.0 GiB  %[1]s  u1 (unclaimed: no journal of run r0)
A keeper (pid 78) of /s does not answer: it is stopped, or hangs. It holds 1 file.
  FILE          SIZE  SINCE                FOR
  /i/1/disk  1.0 GiB  %[1]s  u1 (unclaimed)
A stopped one goes on with: kill -CONT 78
A keeper (pid 79) is of another state directory, /elsewhere, which is gone or has another keeper by now. It holds 0 files.
See to it with: OS_RESCUE_STATE_DIR=/elsewhere os-rescue status
`, at))
	if got := written(t, func(b *bytes.Buffer) error { return WriteUnclaimedHolds(b, plain(), pin.KeeperStatus{Running: true}) }); got != "" {
		t.Errorf("of nothing it says %q", got)
	}
	got := written(t, func(b *bytes.Buffer) error {
		return WriteOverview(b, plain(), Overview{Keeper: pin.KeeperStatus{Others: k.Others[:1]}})
	})
	if strings.Contains(got, "nothing is held") || !strings.Contains(got, "A keeper (pid 78) of /s does not answer") {
		t.Errorf("%q", got)
	}
}

func TestTheOverviewListsTheRunsAndWhatKeeperAndGuardHold(t *testing.T) {
	at := when(stood().Started)
	o := Overview{
		Runs: []recover.RunStatus{stood()},
		Keeper: pin.KeeperStatus{Running: true, PID: 77, Holds: []pin.KeeperHold{
			{Instances: []string{"u1", "u2"}, Path: "/i/_base/a", Size: gib, Since: stood().Started},
		}},
		Guard: guard.Status{Running: true, PID: 78, Scanned: stood().Started,
			Held:     guard.Held{Files: 9, Bytes: 2 * gib, DeletedFiles: 3, DeletedBytes: gib},
			Problems: []string{"Nova does not answer"},
			Incidents: []guard.Incident{{
				UUID: "u1", Domain: "instance-00000001", Name: "web", Since: stood().Started,
				Paths: []string{"/i/1/disk", "/i/_base/a"}, Bytes: gib, Locked: true,
			}},
		},
	}
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteOverview(b, plain(), o) }), fmt.Sprintf(`
RUN  COMMAND  STARTED              FINISHED  STATE        INSTANCES
r1   rescue   %[1]s  -         interrupted  1 rescued, 1 not finished

The keeper (pid 77) holds 1 file.
  FILE           SIZE  SINCE                FOR
  /i/_base/a  1.0 GiB  %[1]s  u1, u2
When nobody needs them any more: os-rescue guard release UUID for those of an incident, os-rescue keeper release for the others
The guard (pid 78) holds 9 files (2.0 GiB), 3 of them deleted (1.0 GiB). Its last scan was at %[1]s.
  Problem: Nova does not answer
  INCIDENT           NAME  INSTANCE  SINCE                FILES     SIZE  STATE
  instance-00000001  web   u1        %[1]s      2  1.0 GiB  files deleted, locked in Nova

Next, finish the interrupted runs: os-rescue resume
`, at))
	got := written(t, func(b *bytes.Buffer) error { return WriteOverview(b, plain(), Overview{}) })
	if !strings.HasPrefix(got, "No runs.\n\nThe keeper is not running: nothing is held.\nNo guard runs") {
		t.Errorf("%q", got)
	}
}

func TestAPlanOfModeAutoSaysWhoIsRescuedLiveAndWhyTheOthersAreNot(t *testing.T) {
	active := &recover.Server{Status: "ACTIVE"}
	plan := recover.Plan{Command: recover.CommandRescue, Mode: "auto", Host: "cmp-7",
		Options:   recover.Options{Mode: recover.ModeAuto, Selection: recover.Selection{Project: "shop"}},
		Elsewhere: []recover.Elsewhere{{UUID: "e1", Name: "db", Host: "cmp-8", Status: "ACTIVE"}},
		Instances: []recover.InstancePlan{
			{UUID: "u1", Domain: "instance-00000001", Name: "web", Action: recover.ActionLive, Found: recover.StateRunning, Server: active,
				Steps: []string{"lock it in Nova", "mirror /i/1/disk (3.0 GiB of 20 GiB) while the guest runs", "unlock it"},
				Files: []recover.FilePlan{{Path: "/i/1/disk", Role: recover.RoleDisk, Size: 20 * gib, Allocated: 3 * gib, Writable: true}}},
			{UUID: "u2", Domain: "instance-00000002", Action: recover.ActionLive, Found: recover.StatePaused,
				Server: &recover.Server{Status: "PAUSED"}},
			{UUID: "u3", Domain: "instance-00000003", Action: recover.ActionReboot, Found: recover.StateRunning, Server: active,
				NotLive: "/i/3/disk contains internal snapshots\x1b[2J: --mode reboot keeps them", Steps: []string{"destroy the domain"}},
		}}
	golden(t, written(t, func(b *bytes.Buffer) error { return WritePlan(b, plain(), plan) }), `
Plan of a rescue on cmp-7, mode auto

instance-00000001  web  u1
  live, no reboot: mirror while it runs, suspend for a moment, move it over (found running, ACTIVE in Nova); 3.0 GiB to copy
    1. lock it in Nova
    2. mirror /i/1/disk (3.0 GiB of 20 GiB) while the guest runs
    3. unlock it
  FILE       ROLE               SIZE
  /i/1/disk  disk  3.0 GiB of 20 GiB

instance-00000002  u2
  live, no reboot: mirror it, move it over, leave it paused (found paused, PAUSED in Nova); 0 B to copy

instance-00000003  u3
  pause, copy, verify, destroy, put back, hard reboot (found running, ACTIVE in Nova); 0 B to copy
  not live: /i/3/disk contains internal snapshots?[2J: --mode reboot keeps them
    1. destroy the domain

On other hosts, and left alone: 1 instance
  HOST   NAME  STATUS  INSTANCE
  cmp-8  db    ACTIVE  e1
On cmp-8: os-rescue --project shop --mode auto

In total: 1 instance rescued live (suspended for a moment), 1 instance rescued live, 1 instance paused, destroyed and hard rebooted.
`)
}

func TestTheResultOfALiveRunSaysHowShortTheSuspendWasAndHowItWasVerified(t *testing.T) {
	r := recover.RunReport{Run: "r7", Command: "rescue", Mode: "auto", Host: "cmp-7"}
	for n, i := range []recover.InstanceReport{
		{Mode: recover.ModeLive, Verified: recover.VerifyRunning, PauseSeconds: 0.0441, DowntimeSeconds: 0.0441, Bytes: 3 * gib},
		{Mode: recover.ModeLive, Verified: recover.VerifyFull, PauseSeconds: 12.2, DowntimeSeconds: 12.2, Bytes: gib},
		{Mode: recover.ModeLive, Verified: recover.VerifyStructure, PauseSeconds: 0.0629, DowntimeSeconds: 0.0629, Bytes: gib,
			Notes: []string{"the new disks were checked as images"}},
		{Mode: recover.ModeReboot, PauseSeconds: 3.44, DowntimeSeconds: 14.2, Bytes: gib},
	} {
		i.UUID, i.Domain, i.Outcome = fmt.Sprintf("u%d", n+1), fmt.Sprintf("instance-0000000%d", n+1), recover.OutcomeRescued
		r.Instances = append(r.Instances, i)
	}
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteRun(b, plain(), r, everything()) }), `
INSTANCE           NAME  OUTCOME  PAUSED   DOWN   COPIED  NOTE
instance-00000001  -     rescued   44 ms  44 ms  3.0 GiB  live, compared in full while it ran
instance-00000002  -     rescued    12 s   12 s  1.0 GiB  live, compared in full under the suspend
instance-00000003  -     rescued   63 ms  63 ms  1.0 GiB  live, NOT compared; see below
instance-00000004  -     rescued   3.4 s   14 s  1.0 GiB

instance-00000003  u3
  Note: the new disks were checked as images

4 rescued. Run r7.
`)
}
