package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

// killedLive lets a live rescue of all instances kill itself at a point, together
// with the witness that would undo it.
func killedLive(t *testing.T, l *lab.Lab, point string, more ...string) {
	t.Helper()
	env := []string{"OS_RESCUE_WITNESS=none", "OS_RESCUE_FAILPOINT=" + point + "=kill"}
	runEnv(t, l, env, 128+9, rescueArgs(append(more, "--all", "--mode", "live")...)...)
}

// isWhole boots a guest that is off, and checks that it has lost nothing since
// it said a beat.
func (v *victim) isWhole(t *testing.T, said int) {
	t.Helper()
	if state := v.State(t); state != "shut off" {
		t.Fatalf("it ended, and is %s", state)
	}
	v.Start(t)
	v.isBack(t, 1)
	v.intact(t)
	again := v.Boots()[v.boots-1]
	if again.LastBeat < said || again.Gaps != 0 {
		t.Errorf("beat %d was said before the end; on the disk are %d with %d gaps", said, again.LastBeat, again.Gaps)
	}
	for disk, state := range again.Disks {
		if state != "ok" {
			t.Errorf("%s is %s", disk, state)
		}
	}
}

// end ends a guest as it can be ended: one that runs powers itself off, one that
// is paused is pulled. It returns the last beat before.
func (v *victim) end(t *testing.T) int {
	t.Helper()
	if v.State(t) == "paused" {
		said := v.LastBeat()
		v.Destroy(t)
		return said
	}
	v.WaitBeat(t, v.LastBeat()+1)
	said := v.LastBeat()
	v.PowerOff(t)
	return said
}

func TestALiveRunThatWasKilledBetweenTwoDisksIsFinishedByResume(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Swap: "raw"})
	pid, owned := v.QemuPID(), owners(t, v.Dir)
	for _, point := range []string{
		"mirror.begin#2", "mirror.done#2", "place.begin#2", "place.done#2",
		"pivot.begin#2", "pivot.done#2", "publish.begin#4",
	} {
		t.Run("killed at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			killedLive(t, l, point)
			want := "paused"
			if strings.HasPrefix(point, "mirror") {
				want = "running"
			}
			if state := v.State(t); state != want {
				t.Errorf("it is %s after the kill", state)
			}
			run(t, l, 0, "resume", "--yes")
			v.stayed(t, pid)
			v.intact(t)
			v.jobless(t)
			after := owners(t, v.Dir)
			// Of a raw disk nothing can prove the new one any more: what it was before stays beside it.
			maps.DeleteFunc(after, func(name, _ string) bool { return strings.HasPrefix(name, "disk.swap.before-") })
			if diff := cmp.Diff(owned, after); diff != "" {
				t.Errorf("owners and modes (-before +after):\n%s", diff)
			}
		})
		if strings.HasPrefix(point, "mirror") {
			continue
		}
		t.Run("killed at "+point+", and let go on by an admin", func(t *testing.T) {
			l.DeleteTree(t)
			killedLive(t, l, point)
			l.Virsh(t, "resume", v.Name)
			v.stayed(t, pid)
			run(t, l, 0, "resume", "--yes")
			v.stayed(t, pid)
			v.intact(t)
			v.jobless(t)
		})
	}
	v.isWhole(t, v.end(t))
}

func TestNoByteIsLostWhenTheGuestEndsInTheMiddleOfALiveRescue(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Swap: "raw"})
	for _, point := range []string{"mirror.begin#2", "ready.begin", "place.done#2", "pivot.done"} {
		t.Run("ends at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			said := 0
			r := at(t, l, point, func() { said = v.end(t) }, rescueArgs("--all", "--mode", "live")...)
			t.Logf("exit code %d\n%s", r.Code, asJSON(t, report(t, r).Instances))
			if r.Code != 0 {
				run(t, l, 0, "resume", "--yes")
			}
			v.isWhole(t, said)
		})
		t.Run("ends after a kill at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			killedLive(t, l, point)
			said := v.end(t)
			r := run(t, l, 0, "resume", "--yes")
			t.Log(r.Stdout)
			v.isWhole(t, said)
		})
	}
}

// An admin starts the domain from a file that had just got its name: where nobody
// can tell which of the two is later, both are kept and named.
func TestWhatAnAdminStartedAfterAKillIsNotTakenAway(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	for point, code := range map[string]int{"place.done": 1, "pivot.begin": 1, "confirm.done": 0} {
		t.Run("killed at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			killedLive(t, l, point)
			v.Destroy(t)
			v.Start(t)
			v.isBack(t, 1)
			said := v.end(t)
			r := run(t, l, code, "resume", "--yes")
			if code == 1 {
				says(t, r.Stdout, "Both are kept", "os-rescue resume --abandon")
				if err := os.RemoveAll(filepath.Join(stateDir, "runs")); err != nil {
					t.Fatal(err)
				}
				// What it holds counts against the disk that the admin chose, until somebody decides.
				run(t, l, 0, "keeper", "release", "--all", "--yes", "--accept-loss", "last-copy")
			}
			v.isWhole(t, said)
		})
	}
}

func TestAProofThatIsInterruptedIsReportedAsNone(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	pid := v.QemuPID()
	for point, proof := range map[string]recover.Verify{
		"compare.begin": recover.VerifyStructure, "compare.done": recover.VerifyRunning,
	} {
		t.Run("int at "+point, func(t *testing.T) {
			remove(t, v.Disk)
			r := runEnv(t, l, []string{"OS_RESCUE_FAILPOINT=" + point + "=int"}, 0, rescueArgs("--all", "--mode", "live")...)
			got := of(t, report(t, r), v)
			if got.Outcome != recover.OutcomeRescued || got.Verified != proof {
				t.Errorf("the report is %s", asJSON(t, got))
			}
			v.stayed(t, pid)
			v.intact(t)
			v.jobless(t)
		})
		t.Run("killed at "+point, func(t *testing.T) {
			remove(t, v.Disk)
			killedLive(t, l, point)
			got := of(t, report(t, run(t, l, 0, "resume", "--yes", "--output", "json")), v)
			said := strings.Contains(fmt.Sprint(got.Notes), "before they were compared")
			if got.Outcome != recover.OutcomeRescued || got.Verified != proof || said != (proof == recover.VerifyStructure) {
				t.Errorf("the report is %s", asJSON(t, got))
			}
			v.stayed(t, pid)
			v.intact(t)
			v.jobless(t)
		})
		t.Run("int, with the guest suspended, at "+point, func(t *testing.T) {
			remove(t, v.Disk)
			runEnv(t, l, []string{"OS_RESCUE_FAILPOINT=" + point + "=int"}, 130, rescueArgs("--all", "--mode", "live", "--verify", "full")...)
			v.stayed(t, pid)
			if exists(v.Disk) {
				t.Error("it has a disk already")
			}
			killedLive(t, l, point, "--verify", "full")
			if state := v.State(t); state != "paused" {
				t.Errorf("it is %s after the kill", state)
			}
			run(t, l, 0, "resume", "--yes")
			v.stayed(t, pid)
			v.intact(t)
			v.jobless(t)
		})
	}
}

// spoiling returns a program that overwrites the end of a staged raw disk.
func (v *victim) spoiling(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spoil")
	script := "#!/bin/sh\ndate +%N | dd of=\"$(echo " + lab.InstancesDir + "/.os-rescue-*/" + v.UUID + ".disk.*)\" " +
		fmt.Sprintf("bs=512 seek=%d conv=notrunc,fsync\n", size(t, v.held(t, v.Disk))/512-1)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestADiskThatDiffersIsNotForgottenByAKill(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, RawDisk: true})
	pid := v.QemuPID()
	t.Run("compared while suspended: the guest stays on its old disk", func(t *testing.T) {
		l.DeleteTree(t)
		env := []string{"OS_RESCUE_FAILPOINT=suspend.done=exec:" + v.spoiling(t)}
		got := of(t, report(t, runEnv(t, l, env, 1, rescueArgs("--all", "--mode", "live", "--verify", "full")...)), v)
		says(t, got.Error, "differ", "as it was found")
		v.stayed(t, pid)
		v.nothingStaged(t)
		if exists(v.Disk) {
			t.Error("it has a disk already")
		}
	})
	for _, point := range []string{"compare.failed", "copy.begin", "publish.begin#2"} {
		t.Run("killed at "+point, func(t *testing.T) {
			remove(t, v.Disk)
			pid = v.QemuPID()
			env := []string{"OS_RESCUE_WITNESS=none", "OS_RESCUE_FAILPOINT=place.begin=exec:" + v.spoiling(t) + "," + point + "=kill"}
			r := runEnv(t, l, env, 128+9, rescueArgs("--all", "--mode", "live")...)
			t.Log(r.Stderr)
			r = l.Run(t, nil, "resume", "--yes", "--output", "json")
			t.Logf("exit code %d: %s", r.Code, r.Stdout)
			kept, _ := filepath.Glob(v.Disk + ".before-*")
			if len(kept) != 1 || digest(t, kept[0]) == digest(t, v.Disk) {
				t.Errorf("kept are %v", kept)
			}
			v.stayed(t, pid)
			v.jobless(t)
			v.nothingStaged(t)
			remove(t, kept...)
		})
	}
}

func TestALiveRescueGoesOnAfterARestartOfLibvirtd(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Swap: "qcow2"})
	pid := v.QemuPID()
	for _, point := range []string{
		"mirror.begin", "mirror.done",
		"suspend.begin",
		"place.begin",
		"pivot.begin", "pivot.done",
		"export.begin", "export.done",
		"continue.done",
		"end-export.begin",
	} {
		t.Run("restarted at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			r := at(t, l, point, func() { l.RestartLibvirtd(t) }, rescueArgs("--all", "--mode", "live")...)
			t.Log(asJSON(t, report(t, r).Instances))
			if r.Code != 0 {
				t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
			}
			v.stayed(t, pid)
			v.intact(t)
			v.jobless(t)
		})
	}
}
