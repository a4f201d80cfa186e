package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// live rescues every instance live, and returns the run's report.
func live(t *testing.T, l *lab.Lab, code int, more ...string) recover.RunReport {
	t.Helper()
	return rescue(t, l, code, append([]string{"--all", "--mode", "live"}, more...)...)
}

// definitions are what libvirt says of a domain's disks: live, and for a next start.
func (v *victim) definitions(t *testing.T) map[string][]string {
	t.Helper()
	said := map[string][]string{}
	for kind, flag := range map[string]string{"live": "--security-info", "inactive": "--inactive"} {
		for line := range strings.Lines(v.l.Virsh(t, "dumpxml", flag, v.Name)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "<source file=") || strings.HasPrefix(line, "<driver name='qemu'") || strings.HasPrefix(line, "<mirror") {
				path, _, _ := strings.Cut(line, " index=")
				said[kind] = append(said[kind], strings.TrimSuffix(path, "/>"))
			}
		}
	}
	return said
}

// neverStopped checks that the guest's beats go on without a gap of more than
// two, in the QEMU that it was in, and that it was never rebooted.
func (v *victim) neverStopped(t *testing.T, pid int) {
	t.Helper()
	v.unharmed(t)
	if now := v.QemuPID(); now != pid {
		t.Errorf("its QEMU is process %d, and was %d", now, pid)
	}
	beats := v.Boots()[v.boots-1].Beats
	for n := 1; n < len(beats); n++ {
		if beats[n]-beats[n-1] > 2 {
			t.Errorf("no beat between %d and %d", beats[n-1], beats[n])
		}
	}
}

// jobless checks that no job is left on the domain.
func (v *victim) jobless(t *testing.T) {
	t.Helper()
	if got := scan(t, v.l)[v.UUID]; strings.Contains(strings.Join(got.Reasons, "; "), "job") {
		t.Errorf("scan says %v", got.Reasons)
	}
	v.mirrorless(t)
	if job := v.l.Virsh(t, "domjobinfo", v.Name); !strings.Contains(job, "None") {
		t.Errorf("a job is left: %s", job)
	}
}

// owners returns the owner and mode of everything in a directory, and its own.
func owners(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for path, said := range listing(t, dir) {
		_, rest, _ := strings.Cut(said, "mode ")
		fields := strings.Split(rest, ",")
		all[filepath.Base(path)] = fields[0] + strings.Split(fields[1], ";")[0]
	}
	return all
}

func TestARunBringsAGuestsFilesBackWhileItRunsOn(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Ephemeral: true, Swap: "raw", ConfigDrive: true})
	v.WaitBeat(t, 3)
	pid, before, owned := v.QemuPID(), v.definitions(t), owners(t, v.Dir)
	l.Purge(t)
	ran := live(t, l, 0)
	got := of(t, ran, v)
	if got.Outcome != recover.OutcomeRescued || got.Mode != recover.ModeLive || got.Verified != recover.VerifyRunning ||
		got.PauseSeconds <= 0 || got.PauseSeconds > patience.Of(5*time.Second).Seconds() ||
		got.DowntimeSeconds != got.PauseSeconds || got.Bytes < 1<<20 {
		t.Errorf("the report is %s", asJSON(t, got))
	}
	t.Logf("suspended for %.0f ms", got.PauseSeconds*1000)
	v.neverStopped(t, pid)
	v.intact(t)
	v.jobless(t)
	if diff := cmp.Diff(before, v.definitions(t)); diff != "" {
		t.Errorf("the definitions (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(owned, owners(t, v.Dir)); diff != "" {
		t.Errorf("owners and modes (-before +after):\n%s", diff)
	}
	said := v.LastBeat()
	v.Destroy(t)
	v.Start(t)
	v.isBack(t, 1)
	v.Verify(t)
	again := v.Boots()[v.boots-1]
	if diff := cmp.Diff(map[string]string{"vdb": "ok", "vdc": "ok"}, again.Disks); diff != "" {
		t.Errorf("its further disks (-want +got):\n%s", diff)
	}
	if again.LastBeat < said-1 || again.Gaps != 0 {
		t.Errorf("beat %d was said; on the disk are %d with %d gaps", said, again.LastBeat, again.Gaps)
	}
	v.holdsWhatIsPublished(t)
	t.Run("nothing is left open or behind", func(t *testing.T) { nothingIsLeft(t, l) })
	for _, proof := range []recover.Verify{recover.VerifyFull, recover.VerifyStructure} {
		t.Run("proven by "+string(proof), func(t *testing.T) {
			l.DeleteTree(t)
			pid := v.QemuPID()
			got := of(t, live(t, l, 0, "--verify", string(proof)), v)
			if got.Verified != proof || strings.Contains(strings.Join(got.Notes, " "), "not compared") != (proof == recover.VerifyStructure) {
				t.Errorf("the report is %s", asJSON(t, got))
			}
			v.unharmed(t)
			v.intact(t)
			if v.QemuPID() != pid {
				t.Error("it has another QEMU")
			}
		})
	}
	t.Run("a guest that its owner paused stays paused", func(t *testing.T) {
		l.DeleteTree(t)
		l.Virsh(t, "suspend", v.Name)
		got := of(t, live(t, l, 0), v)
		if got.Outcome != recover.OutcomeRescued || got.Verified != recover.VerifyRunning || got.PauseSeconds != 0 {
			t.Errorf("the report is %s", asJSON(t, got))
		}
		if state := v.State(t); state != "paused" {
			t.Errorf("it is %s", state)
		}
		v.intact(t)
		l.Virsh(t, "resume", v.Name)
		v.unharmed(t)

		l.DeleteTree(t)
		r := at(t, l, "ready.begin", func() { l.Virsh(t, "suspend", v.Name) }, rescueArgs("--all", "--mode", "live")...)
		if got := of(t, report(t, r), v); r.Code != 0 || got.Outcome != recover.OutcomeRescued {
			t.Errorf("paused in the middle: exit code %d, %s", r.Code, asJSON(t, got))
		}
		if state := v.State(t); state != "paused" {
			t.Errorf("paused in the middle, it is %s", state)
		}
		l.Virsh(t, "resume", v.Name)
		v.unharmed(t)
	})
}

func TestAChainOfImagesAndARawDiskAreRescuedLive(t *testing.T) {
	l := lab.New(t, withFailpoints)
	guests := bootAll(t, l, lab.Spec{LogAppend: true}, lab.Spec{LogAppend: true, RawDisk: true})
	v, raw := guests[0], guests[1]
	for n := range 2 {
		l.Virsh(t, "snapshot-create-as", v.Name, "--no-metadata", "--disk-only", "--diskspec", "vda,file="+v.Disk+".layer"+strconv.Itoa(n))
		v.WaitBeat(t, v.LastBeat()+1)
	}
	l.Purge(t)
	ran := live(t, l, 0)
	for _, g := range guests {
		if got := of(t, ran, g); got.Outcome != recover.OutcomeRescued || got.Verified != recover.VerifyRunning {
			t.Errorf("the report is %s", asJSON(t, got))
		}
		g.unharmed(t)
		g.nothingStaged(t)
		g.jobless(t)
		// Nova would define the lowest layer as the disk.
		if got := scan(t, l)[g.UUID]; !got.IsWhole() || (got.StartsElsewhere(recover.StarterNova) != "") != (g == v) ||
			got.StartsElsewhere(recover.StarterLibvirt) != "" {
			t.Errorf("scan says %s: %v", got.Verdict, got.Reasons)
		}
	}
	for _, g := range []*victim{v, raw} {
		g.Destroy(t)
		g.Start(t)
		g.isBack(t, 1)
		g.Verify(t)
	}
	if chain := l.Virsh(t, "dumpxml", v.Name); strings.Count(chain, "<backingStore type='file'") != 3 {
		t.Errorf("its chain is not four images deep:\n%s", chain)
	}
}

func TestALiveRunThatWasKilledAtAnyPointIsFinishedByResume(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Swap: "qcow2", ConfigDrive: true})
	owned := owners(t, v.Dir)
	l.DeleteTree(t)
	points := journalPoints(t, live(t, l, 0).Run)
	if !slices.Contains(points, "pivot.done") || !slices.Contains(points, "end-export.done") {
		t.Fatalf("a live rescue has only the points %v", points)
	}
	pid := v.QemuPID()
	for _, point := range drawn(t, 0, points, "suspend.done", "place.begin", "pivot.done") {
		t.Run("killed at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			runEnv(t, l, []string{"OS_RESCUE_FAILPOINT=" + point + "=kill"}, 128+9, "--all", "--offline", "--mode", "live", "--yes")
			// Nobody has to come for that.
			patience.Wait(t, "its mirrors to be ended, and the guest to go on", func() bool {
				return v.State(t) == "running" &&
					!strings.Contains(l.Virsh(t, "dumpxml", v.Name), "<mirror") &&
					strings.Contains(l.Virsh(t, "domjobinfo", v.Name), "None")
			})
			run(t, l, 0, "resume", "--yes")
			v.stayed(t, pid)
			v.intact(t)
			v.jobless(t)
			if diff := cmp.Diff(owned, owners(t, v.Dir)); diff != "" {
				t.Errorf("owners and modes (-before +after):\n%s", diff)
			}
		})
	}
	moved := slices.Index(points, "place.begin") // from there on it goes through to the end
	for n, point := range drawn(t, 1, points, "suspend.done", "place.begin") {
		signal := []string{"int", "hup", "term"}[n/3%3]
		t.Run(signal+" at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			r := l.Run(t, []string{"OS_RESCUE_FAILPOINT=" + point + "=" + signal}, "--all", "--offline", "--mode", "live", "--yes")
			v.stayed(t, pid)
			v.nothingStaged(t)
			if n >= moved {
				if r.Code != 0 {
					t.Fatalf("exit code %d after the guest was moved\n%s", r.Code, r.Stderr)
				}
			} else {
				if r.Code != 130 {
					t.Fatalf("exit code %d, want 130\n%s", r.Code, r.Stderr)
				}
				if got := scan(t, l)[v.UUID]; got.Verdict != recover.VerdictRecoverable || exists(v.Disk) {
					t.Errorf("it is not as it was found: scan says %s %v", got.Verdict, got.Reasons)
				}
				run(t, l, 0, "--all", "--offline", "--mode", "live", "--yes")
			}
			v.intact(t)
			v.jobless(t)
			if diff := cmp.Diff(owned, owners(t, v.Dir)); diff != "" {
				t.Errorf("owners and modes (-before +after):\n%s", diff)
			}
		})
	}
	v.Destroy(t)
	v.Start(t)
	v.isBack(t, 1)
	v.Verify(t)
}

// stayed checks that the guest runs on in the QEMU that it was in.
func (v *victim) stayed(t *testing.T, pid int) {
	t.Helper()
	v.WaitBeat(t, v.LastBeat()+1)
	if len(v.Boots()) != v.boots {
		t.Fatal("the guest was rebooted")
	}
	if now := v.QemuPID(); now != pid {
		t.Errorf("its QEMU is process %d, and was %d", now, pid)
	}
}

// In the moment in which QEMU opens a mirror's file, that file is at the disk's
// own path.
func TestAFileThatAKilledRunLeftAtTheDisksPathIsNoDisk(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	pid := v.QemuPID()
	l.DeleteTree(t)
	var p *lab.Process
	r := lab.At(t, "mirror.done", func(env []string) *lab.Process {
		p = l.StartCommand(t, env, rescueArgs("--all", "--mode", "live")...)
		return p
	}, func() {
		staged, _ := filepath.Glob(filepath.Join(lab.InstancesDir, ".os-rescue-*", v.UUID+".disk.*"))
		if len(staged) != 1 {
			t.Fatalf("staged are %v", staged)
		}
		if err := os.Rename(staged[0], v.Disk); err != nil {
			t.Fatal(err)
		}
		p.Signal(t, syscall.SIGKILL)
	})
	if r.Code != 128+9 {
		t.Fatalf("exit code %d", r.Code)
	}
	run(t, l, 0, "resume", "--yes")
	v.stayed(t, pid)
	v.intact(t)
	v.jobless(t)
}

// slowly keeps a mirror of the lab's smallest disk busy for half a minute.
var slowly = []string{"--bandwidth", "100K"}

func TestAMirrorThatIsNotReadyInTimeIsGivenUp(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	pid := v.QemuPID()
	l.DeleteTree(t)
	got := of(t, live(t, l, 1, append(slowly, "--timeout", "2s")...), v)
	says(t, got.Error, "--timeout", "as it was found")
	v.stayed(t, pid)
	v.mirrorless(t)
	t.Run("libvirtd may be restarted in the middle", func(t *testing.T) {
		r := at(t, l, "ready.begin", func() { l.RestartLibvirtd(t) }, rescueArgs("--all", "--mode", "live")...)
		if r.Code != 0 {
			t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
		}
		v.stayed(t, pid)
		v.intact(t)
		v.jobless(t)
	})
	t.Run("nobody can boot half a disk", func(t *testing.T) {
		l.DeleteTree(t)
		r := at(t, l, "ready.begin", func() {
			v.Destroy(t)
			if _, err := exec.Command("virsh", "start", v.Name).CombinedOutput(); err == nil {
				t.Error("it was started in the middle of its rescue")
			}
		}, rescueArgs(append(slowly, "--all", "--mode", "live")...)...)
		if r.Code != 0 {
			t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
		}
		if state := v.State(t); state != "shut off" {
			t.Fatalf("it is %s", state)
		}
		v.Start(t)
		v.isBack(t, 1)
		v.Verify(t)
		v.intact(t)
	})
}

func TestAGuestThatWritesWithoutAPauseIsRescuedLive(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	v.WaitLine(t, v.Send(t, "write"), "write=10")
	pid := v.QemuPID()
	for range 3 {
		l.DeleteTree(t)
		got := of(t, live(t, l, 0), v)
		if got.Verified != recover.VerifyRunning {
			t.Errorf("the report is %s", asJSON(t, got))
		}
		v.neverStopped(t, pid)
		v.intact(t)
	}
	v.Destroy(t) // in the middle of its writing
	v.Start(t)
	v.isBack(t, 1)
	v.Verify(t)
	if again := v.Boots()[v.boots-1]; again.Writer != "ok" || again.Gaps != 0 {
		t.Errorf("after its end it found its writes %q, with %d gaps in its beats", again.Writer, again.Gaps)
	}
}

func TestALiveRescueOntoAFullFileSystemLeavesTheGuestAsItWas(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Swap: "raw"})
	pid := v.QemuPID()
	l.DeleteTree(t)
	filler := filepath.Join(lab.NovaDir, "filler")
	r := at(t, l, "mirror.begin", func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var end int64
		for chunk := int64(1 << 30); chunk >= 1<<16; {
			if err := unix.Fallocate(int(f.Fd()), 0, end, chunk); err != nil {
				chunk /= 2
				continue
			}
			end += chunk
		}
	}, rescueArgs("--all", "--mode", "live")...)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if r.Code != 1 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	says(t, of(t, report(t, r), v).Error, "space", "as it was found")
	v.stayed(t, pid)
	v.mirrorless(t)
	v.nothingStaged(t)
	live(t, l, 0)
	v.stayed(t, pid)
	v.intact(t)
}

// mirrorless checks that no mirror is left on a domain whose files are still lost.
func (v *victim) mirrorless(t *testing.T) {
	t.Helper()
	if xml := v.l.Virsh(t, "dumpxml", v.Name); strings.Contains(xml, "<mirror") {
		t.Error("a mirror is left")
	}
}

func TestWhatCantBeRescuedLiveIsSaidBefore(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	pid := v.QemuPID()
	refused := func(words string, args ...string) {
		t.Helper()
		var plan recover.Plan
		dry := append([]string{"--all", "--offline", "--mode", "live", "--dry-run", "--output", "json"}, args...)
		decode(t, run(t, l, 0, dry...).Stdout, &plan)
		if todo := plan.Instances[0]; todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, words) {
			t.Errorf("the plan is %s: %s; want %q", todo.Action, todo.Refusal, words)
		}
		says(t, of(t, live(t, l, 1, args...), v).Error, words)
		v.stayed(t, pid)
	}
	l.Virsh(t, "blockcopy", v.Name, "vda", "--dest", "/var/lib/nova/elsewhere", "--transient-job", "--bandwidth", "1")
	l.DeleteTree(t)
	refused("block job is under way")
	l.Virsh(t, "blockjob", v.Name, "vda", "--abort")
	refused("--backup-dir", "--backup-dir", t.TempDir())
	live(t, l, 0)

	v.Destroy(t)
	if out, err := exec.Command("qemu-img", "snapshot", "-c", "kept", v.Disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v.Start(t)
	v.isBack(t, 1)
	pid = v.QemuPID()
	l.DeleteTree(t)
	refused("internal snapshots (1)")
	t.Run("mode auto reboots it, and says why", func(t *testing.T) {
		var plan recover.Plan
		decode(t, run(t, l, 0, "--all", "--offline", "--mode", "auto", "--dry-run", "--output", "json").Stdout, &plan)
		if todo := plan.Instances[0]; todo.Action != recover.ActionReboot || !strings.Contains(todo.NotLive, "internal snapshots") {
			t.Errorf("the plan is %s: %q", todo.Action, todo.NotLive)
		}
		got := of(t, rescue(t, l, 0, "--all", "--mode", "auto"), v)
		if got.Mode != recover.ModeReboot || !strings.Contains(strings.Join(got.Notes, " "), "internal snapshots") {
			t.Errorf("the report is %s", asJSON(t, got))
		}
		v.isBack(t, 1)
		v.intact(t)
	})
}

func TestADiskThatChangedOnItsWayIsFoundAndTheOldOneKept(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, RawDisk: true})
	pid := v.QemuPID()
	l.DeleteTree(t)
	r := at(t, l, "place.begin", func() {
		staged, _ := filepath.Glob(filepath.Join(lab.InstancesDir, ".os-rescue-*", v.UUID+".disk.*"))
		if len(staged) != 1 {
			t.Fatalf("staged are %v", staged)
		}
		f, err := os.OpenFile(staged[0], os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		// The last sectors are of no partition.
		if _, err := f.WriteAt([]byte("not what the guest wrote"), info.Size()-512); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}, rescueArgs("--all", "--mode", "live")...)
	if r.Code != 1 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	ran := report(t, r)
	got := of(t, ran, v)
	says(t, got.Error, "differ", "the disk as it was before is in a file beside it")
	kept := v.Disk + ".before-" + ran.Run
	if !exists(kept) {
		t.Fatalf("no %s", kept)
	}
	if digest(t, kept) == digest(t, v.Disk) {
		t.Error("both are the same")
	}
	v.stayed(t, pid)
	v.jobless(t)
	patience.Wait(t, "the keeper ends by itself", func() bool { return !holdings(t, l).Running })
}
