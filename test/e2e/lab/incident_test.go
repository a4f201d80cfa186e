package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// The incident: the whole tree is purged under a running guest.
func TestARunBringsAGuestBackWithEveryByte(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Ephemeral: true, Swap: "qcow2", ConfigDrive: true})
	v.WaitBeat(t, 3)
	l.Purge(t)

	if got := scan(t, l)[v.UUID]; got.Verdict != recover.VerdictRecoverable {
		t.Fatalf("scan says %s: %v", got.Verdict, got.Reasons)
	}
	said := v.LastBeat()
	ran := rescue(t, l, 0, "--all")
	got := of(t, ran, v)
	if got.Outcome != recover.OutcomeRescued || got.PauseSeconds <= 0 || got.DowntimeSeconds < got.PauseSeconds || got.Bytes < 1<<20 {
		t.Errorf("the report is %s", asJSON(t, got))
	}
	v.isBack(t, 1)
	v.intact(t)
	v.Verify(t)

	again := v.Boots()[1]
	if diff := cmp.Diff(map[string]string{"vdb": "ok", "vdc": "ok"}, again.Disks); diff != "" {
		t.Errorf("its further disks (-want +got):\n%s", diff)
	}
	if again.LastBeat < said || again.Gaps != 0 {
		t.Errorf("beat %d was said before the suspend; on the disk are %d with %d gaps", said, again.LastBeat, again.Gaps)
	}
	v.logHas(t, said)
	v.holdsWhatIsPublished(t)
	t.Run("the run can be looked at afterwards", func(t *testing.T) { canBeLookedAt(t, l, ran) })
	t.Run("nothing is left open or behind", func(t *testing.T) { nothingIsLeft(t, l) })
	t.Run("a second run does nothing", func(t *testing.T) {
		pid, before := v.QemuPID(), listing(t, lab.NovaDir)
		second := report(t, run(t, l, 0, "--all", "--offline", "--output", "json"))
		if got := of(t, second, v); got.Outcome != recover.OutcomeIntact {
			t.Errorf("the second run says %s", asJSON(t, got))
		}
		if v.QemuPID() != pid {
			t.Error("the second run started another QEMU")
		}
		// The guest goes on writing: the names are what must not change.
		if diff := cmp.Diff(names(before), names(listing(t, lab.NovaDir))); diff != "" {
			t.Errorf("the second run changed the tree:\n%s", diff)
		}
	})
	t.Run("read-only files alone are put back without a pause", func(t *testing.T) { putBack(t, l, v) })
	t.Run("a guest that its owner paused ends paused", func(t *testing.T) { endsPaused(t, l, v) })
}

func names(listing map[string]string) []string {
	var all []string
	for name := range listing {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func canBeLookedAt(t *testing.T, l *lab.Lab, ran recover.RunReport) {
	var status recover.RunStatus
	decode(t, run(t, l, 0, "status", ran.Run, "--output", "json").Stdout, &status)
	if status.State != recover.RunFinished || len(status.Instances) != 1 ||
		status.Instances[0].Outcome != recover.OutcomeRescued || len(status.Instances[0].Steps) < 10 {
		t.Errorf("status says %s", asJSON(t, status))
	}
	says(t, run(t, l, 0, "status").Stdout, ran.Run)
	again := report(t, run(t, l, 0, "report", ran.Run, "--output", "json"))
	if diff := cmp.Diff(ran.Instances, again.Instances); diff != "" {
		t.Errorf("report says something else than the run did (-run +report):\n%s", diff)
	}
}

func nothingIsLeft(t *testing.T, l *lab.Lab) {
	patience.Wait(t, "the keeper ends by itself", func() bool { return !holdings(t, l).Running })
	if keepers := processes(t, "os-rescue"); len(keepers) > 0 {
		t.Errorf("processes of os-rescue that run on: %v", keepers)
	}
	err := filepath.WalkDir(stateDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v: others can look into it", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(stateDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory: %v, %v", info.Mode(), err)
	}
}

// processes returns the pids of the processes with that command name.
func processes(t *testing.T, name string) []string {
	t.Helper()
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, comm := range comms {
		if body, err := os.ReadFile(comm); err == nil && strings.TrimSpace(string(body)) == name {
			pids = append(pids, filepath.Base(filepath.Dir(comm)))
		}
	}
	return pids
}

// putBack loses everything that the guest only reads.
func putBack(t *testing.T, l *lab.Lab, v *victim) {
	config, info := filepath.Join(v.Dir, "disk.config"), filepath.Join(v.Dir, "disk.info")
	was := map[string]string{v.Base: digest(t, v.Base), config: digest(t, config)}
	formats := readFormats(t, info)
	remove(t, v.Base, config, info, v.ConsoleLog)
	pid := v.QemuPID()
	events := watchEvents(t, l, v)

	// It disturbs nobody: no consent is needed.
	got := of(t, report(t, run(t, l, 0, "--all", "--offline", "--output", "json")), v)
	if got.Outcome != recover.OutcomeRescued || got.PauseSeconds != 0 || got.DowntimeSeconds != 0 {
		t.Errorf("the report is %s", asJSON(t, got))
	}
	if seen := events(); strings.Contains(seen, "lifecycle") {
		t.Errorf("libvirt saw the guest pause or stop:\n%s", seen)
	}
	if v.QemuPID() != pid {
		t.Error("it runs in another QEMU now")
	}
	v.unharmed(t)
	v.nothingStaged(t)
	for path, want := range was {
		if digest(t, path) != want {
			t.Errorf("%s came back with another content", path)
		}
	}
	if diff := cmp.Diff(formats, readFormats(t, info)); diff != "" {
		t.Errorf("disk.info (-before +after):\n%s", diff)
	}
	after := scan(t, l)[v.UUID]
	if after.Verdict != recover.VerdictIntact {
		t.Errorf("scan says %s: %v", after.Verdict, after.Reasons)
	}
	for _, f := range after.Files {
		if f.Path == v.Base && (f.State != recover.FileReplaced || !f.Proven) {
			t.Errorf("the backing file is %s, proven %v", f.State, f.Proven)
		}
	}
}

func readFormats(t *testing.T, path string) map[string]string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var formats map[string]string
	if err := json.Unmarshal(body, &formats); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return formats
}

// watchEvents listens to libvirt's events about a domain from now on. What it
// returns ends that, and tells what was heard.
func watchEvents(t *testing.T, l *lab.Lab, v *victim) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("stdbuf", "-oL", "virsh", "--connect", "qemu:///system", "event", v.Name, "--all", "--loop")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	heard := func() string {
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	// It listens once it has heard something that the test itself did.
	mark := func(text string) {
		patience.Wait(t, "an event of libvirt's", func() bool {
			n := strings.Count(heard(), "metadata-change")
			l.Virsh(t, "desc", v.Name, "--live", "--new-desc", text)
			time.Sleep(100 * time.Millisecond)
			return strings.Count(heard(), "metadata-change") > n
		})
	}
	mark("before")
	return func() string {
		mark("after")
		return heard()
	}
}

func endsPaused(t *testing.T, l *lab.Lab, v *victim) {
	l.Virsh(t, "suspend", v.Name)
	l.DeleteTree(t)
	pid := v.QemuPID()
	rescue(t, l, 0, "--instance", v.UUID)
	if state := v.State(t); state != "paused" {
		t.Errorf("it is %s", state)
	}
	if now := v.QemuPID(); now == 0 || now == pid {
		t.Errorf("its QEMU was %d and is %d: it still is on the deleted files", pid, now)
	}
	v.intact(t)
	v.holdsWhatIsPublished(t)
	if got := len(v.Boots()); got != v.boots {
		t.Errorf("it has run meanwhile: %d boots", got)
	}
	l.Virsh(t, "resume", v.Name)
	v.isBack(t, 1)
}
