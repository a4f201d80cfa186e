package e2e

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

func TestScanTellsTheLostFromTheDisplacedAndChangesNothing(t *testing.T) {
	l := lab.New(t, lab.Options{StdioHandler: "file", BuildFlags: withFailpoints.BuildFlags})
	// As on a real host: what is mounted or unmounted here is so for QEMU too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	const uuid = "d1dc1d6a-0000-4000-8000-000000000001"
	volume := filepath.Join(lab.NovaDir, "mnt", "0123456789abcdef", "volume-1")
	trap := volume + " (deleted)"
	spec := lab.Spec{UUID: uuid, NoAgent: true, DevicesXML: diskXML(trap, "vdx") + diskXML(volume, "vdy")}
	v := &victim{l: l, boots: 1, Instance: l.Define(t, spec)}
	for _, path := range []string{trap, volume} {
		write(t, path, "")
		if err := os.Truncate(path, 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	block := &victim{l: l, boots: 1, Instance: l.Define(t, lab.Spec{BlockOnly: true, NoAgent: true})}
	off := &victim{l: l, Instance: l.Define(t, lab.Spec{NoAgent: true})}
	v.Start(t)
	block.Start(t)
	v.WaitBoot(t, 1)
	block.WaitBoot(t, 1)

	expect := func(t *testing.T, want map[*victim]recover.Verdict) map[string]recover.Instance {
		t.Helper()
		before := [2]map[string]string{listing(t, stateDir), listing(t, lab.NovaDir)}
		got := scan(t, l)
		after := [2]map[string]string{listing(t, stateDir), listing(t, lab.NovaDir)}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the scan changed something (-before +after):\n%s", diff)
		}
		for v, verdict := range want {
			if i := got[v.UUID]; i.Verdict != verdict {
				t.Errorf("%s is %s, want %s: %v\n%s", v.Name, i.Verdict, verdict, i.Reasons, asJSON(t, i.Files))
			}
		}
		return got
	}
	allThere := map[*victim]recover.Verdict{v: recover.VerdictIntact, block: recover.VerdictUnaffected, off: recover.VerdictIntact}
	t.Run("all is there", func(t *testing.T) { expect(t, allThere) })

	displaced := map[*victim]recover.Verdict{v: recover.VerdictDisplaced}
	t.Run("mounted over", func(t *testing.T) {
		must(t, unix.Mount("tmpfs", lab.NovaDir, "tmpfs", 0, ""))
		expect(t, displaced)
		must(t, unix.Unmount(lab.NovaDir, 0))
		expect(t, allThere)
	})
	t.Run("a renamed directory", func(t *testing.T) {
		must(t, os.Rename(v.Dir, v.Dir+".old"))
		expect(t, displaced)
		must(t, os.Rename(v.Dir+".old", v.Dir))
		expect(t, allThere)
	})
	t.Run("a hard link is left", func(t *testing.T) {
		kept := filepath.Join(lab.InstancesDir, "kept")
		must(t, os.Link(v.Disk, kept))
		must(t, os.Remove(v.Disk))
		expect(t, map[*victim]recover.Verdict{v: recover.VerdictRecoverable})
		must(t, os.Rename(kept, v.Disk))
		expect(t, allThere)
	})
	t.Run("a file that really is called so", func(t *testing.T) {
		must(t, os.Remove(volume))
		i := expect(t, map[*victim]recover.Verdict{v: recover.VerdictRecoverable})[v.UUID]
		if got := fileOf(t, i, volume); got.State != recover.FileDeleted {
			t.Errorf("%s is %s", volume, got.State)
		}
		if got := fileOf(t, i, trap); got.State != recover.FilePresent || got.Inode != inodeOf(t, trap) {
			t.Errorf("%s is %s", trap, got.State)
		}
	})
	l.Purge(t)
	t.Run("a purge", func(t *testing.T) {
		all := expect(t, map[*victim]recover.Verdict{v: recover.VerdictRecoverable, off: recover.VerdictLost})
		for _, path := range []string{v.Disk, trap, volume, v.Base, v.ConsoleLog} {
			f := fileOf(t, all[v.UUID], path)
			if f.State != recover.FileDeleted || !slices.ContainsFunc(f.Holders, func(h recover.Holder) bool { return h.PID == v.QemuPID() }) {
				t.Errorf("%s is %s, held by %v; want it held by QEMU", path, f.State, f.Holders)
			}
		}
		says(t, strings.Join(all[off.UUID].Possible, "\n"), off.Disk, "restore")
		if files := all[block.UUID].Files; len(files) != 1 || files[0].Role != recover.RoleConsoleLog {
			t.Errorf("the guest on a block device has %s", asJSON(t, files))
		}
		says(t, run(t, l, 0, "scan").Stdout, v.Name, block.Name, off.Name, "recoverable", "lost")
	})
	t.Run("its JSON is what scripts expect", func(t *testing.T) { hasShape(t, run(t, l, 0, "scan", "--output", "json").Stdout) })
	t.Run("and all that is held comes back", func(t *testing.T) {
		pid := block.QemuPID()
		ran := rescue(t, l, 1, "--all")
		if got := of(t, ran, off); got.Outcome != recover.OutcomeSkipped {
			t.Errorf("the lost guest: %s", asJSON(t, got))
		}
		v.isBack(t, 1)
		if diff := cmp.Diff(map[string]string{"vdb": "ok", "vdc": "ok"}, v.Boots()[1].Disks); diff != "" {
			t.Errorf("its further disks (-want +got):\n%s", diff)
		}
		v.intact(t)
		if block.QemuPID() != pid || !exists(block.ConsoleLog) {
			t.Error("the guest on a block device was disturbed, or its console log is not back")
		}
		block.unharmed(t)
	})
	t.Run("unmounted lazily", func(t *testing.T) {
		device := mountedDevice(t, lab.NovaDir)
		must(t, unix.Unmount(lab.NovaDir, unix.MNT_DETACH))
		expect(t, displaced)
		refusesDisplaced(t, l, v)
		must(t, unix.Mount(device, lab.NovaDir, "ext4", 0, ""))
		expect(t, map[*victim]recover.Verdict{v: recover.VerdictIntact})
	})
	t.Run("unmounted lazily, mounted again, and then purged: QEMU still has it", func(t *testing.T) {
		l.Purge(t)
		if i := expect(t, nil)[v.UUID]; i.Verdict == recover.VerdictLost || i.Verdict == recover.VerdictIntact {
			t.Errorf("it is %s: %v", i.Verdict, i.Reasons)
		}
	})
}

// diskXML is a further disk of a domain, as a volume in a file.
func diskXML(path, target string) string {
	return `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='` + path +
		`'/><target dev='` + target + `' bus='virtio'/></disk>`
}

func refusesDisplaced(t *testing.T, l *lab.Lab, v *victim) {
	t.Helper()
	got := of(t, rescue(t, l, 1, "--instance", v.UUID), v)
	if got.Outcome != recover.OutcomeSkipped || got.PauseSeconds != 0 {
		t.Errorf("a run on a displaced tree: %s", asJSON(t, got))
	}
	if exists(lab.InstancesDir) {
		t.Errorf("a run on a displaced tree has made %s", lab.InstancesDir)
	}
	v.unharmed(t)
}

func fileOf(t *testing.T, i recover.Instance, path string) recover.File {
	t.Helper()
	for _, f := range i.Files {
		if f.Path == path {
			return f
		}
	}
	t.Fatalf("the scan does not name %s of %s", path, i.Domain)
	return recover.File{}
}

// mountedDevice returns what is mounted on a directory.
func mountedDevice(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	device := ""
	for in := bufio.NewScanner(f); in.Scan(); {
		if fields := strings.Fields(in.Text()); fields[1] == dir {
			device = fields[0]
		}
	}
	if device == "" {
		t.Fatalf("nothing is mounted on %s", dir)
	}
	return device
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hasShape checks the names that scripts rely on.
func hasShape(t *testing.T, text string) {
	t.Helper()
	var report struct {
		Host      string
		Instances []map[string]any
	}
	decode(t, text, &report)
	if report.Host == "" || len(report.Instances) != 3 {
		t.Fatalf("host %q, %d instances", report.Host, len(report.Instances))
	}
	has := func(what any, keys ...string) {
		t.Helper()
		object, ok := what.(map[string]any)
		for _, key := range keys {
			if _, there := object[key]; !ok || !there {
				t.Errorf("no %s in %v", key, what)
			}
		}
	}
	for _, i := range report.Instances {
		has(i, "uuid", "domain", "pid", "state", "project_id", "project_name", "verdict", "files")
		for _, f := range i["files"].([]any) {
			has(f, "path", "role", "format", "size", "allocated", "device", "inode", "state", "holders")
			for _, h := range f.(map[string]any)["holders"].([]any) {
				has(h, "pid", "fd", "process")
			}
		}
	}
}
