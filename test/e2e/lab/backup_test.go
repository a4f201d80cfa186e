package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/test/lab"
)

func TestABackupRestoresOnAnotherDay(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, ConfigDrive: true, Ephemeral: true, NoAgent: true})
	l.DeleteTree(t)
	dir := t.TempDir()

	t.Run("a backup lets the guest go on and destroys nothing", func(t *testing.T) {
		to := filepath.Join(dir, "first")
		got := of(t, report(t, run(t, l, 0, "backup", "--all", "--to", to, "--yes", "--output", "json")), v)
		if got.Outcome != recover.OutcomeRescued || got.PauseSeconds <= 0 {
			t.Errorf("%s", asJSON(t, got))
		}
		v.unharmed(t)
		if exists(v.Dir) {
			t.Errorf("it has published %s", v.Dir)
		}
		hasLayout(t, v, to)
	})
	t.Run("refused after the guest ran on", func(t *testing.T) {
		r := run(t, l, 1, "restore", "--all", "--offline", "--from", filepath.Join(dir, "first"), "--yes", "--output", "json")
		got := of(t, report(t, r), v)
		says(t, got.Error, "--accept-older", "written since")
		v.unharmed(t)
	})
	paused := filepath.Join(dir, "paused")
	t.Run("kept paused, it is the newest there is", func(t *testing.T) {
		run(t, l, 0, "backup", "--all", "--to", paused, "--keep-paused", "--yes")
		if state := v.State(t); state != "paused" {
			t.Fatalf("the guest is %s", state)
		}
		said := v.LastBeat()
		run(t, l, 0, "restore", "--all", "--offline", "--from", paused, "--no-reboot", "--yes")
		if state := v.State(t); state != "shut off" {
			t.Errorf("with --no-reboot the domain is %s", state)
		}
		isOwnedAsNovaWants(t, v)
		v.Start(t)
		v.isBack(t, 1)
		v.intact(t)
		if again := v.Boots()[1]; again.LastBeat < said || again.Gaps != 0 || again.Disks["vdb"] != "ok" {
			t.Errorf("beat %d was said before the backup; it has %+v", said, again)
		}
	})
	t.Run("kept paused, then destroyed by hand: what is held decides", func(t *testing.T) {
		l.DeleteTree(t)
		byHand, outrun := filepath.Join(dir, "by-hand"), filepath.Join(dir, "outrun")
		run(t, l, 0, "backup", "--all", "--to", byHand, "--keep-paused", "--yes")
		said, heard := v.LastBeat(), len(v.Boots())
		v.Destroy(t)
		run(t, l, 0, "restore", "--all", "--offline", "--from", byHand, "--yes")
		v.isBackFromABackup(t, heard, 3)
		v.intact(t)
		if again := v.Boots()[heard]; again.LastBeat < said || again.Gaps != 0 {
			t.Errorf("beat %d was said before the backup; it has %+v", said, again)
		}

		l.DeleteTree(t)
		run(t, l, 0, "backup", "--all", "--to", outrun, "--keep-paused", "--yes")
		paused := v.LastBeat()
		l.Virsh(t, "resume", v.Name)
		v.WaitBeat(t, paused+2)
		v.Destroy(t)
		got := of(t, report(t, run(t, l, 1, "restore", "--all", "--offline", "--from", outrun, "--yes", "--output", "json")), v)
		says(t, got.Error, v.Disk, "/proc/", "differs", "os-rescue --instance "+v.UUID, "--accept-older")
		if got.Outcome != recover.OutcomeSkipped || exists(v.Disk) {
			t.Errorf("%s", asJSON(t, got))
		}
		heard = len(v.Boots())
		rescue(t, l, 0, "--all")
		v.Start(t)
		v.isBackFromABackup(t, heard, 4)
		if again := v.Boots()[heard]; again.LastBeat < paused+2 || again.Gaps != 0 {
			t.Errorf("beat %d was said after the backup; it has %+v", paused+2, again)
		}
	})
	t.Run("the domain is gone, and its tree", func(t *testing.T) {
		v.Destroy(t)
		l.Virsh(t, "undefine", v.Name)
		l.DeleteTree(t)
		args := []string{"restore", "--instance", v.UUID, "--offline", "--from", paused, "--yes", "--output", "json"}
		got := of(t, report(t, run(t, l, 1, args...)), v)
		says(t, got.Error, "--accept-older")
		if exists(v.Dir) {
			t.Errorf("the refused restore has made %s", v.Dir)
		}
		tampered := filepath.Join(paused, v.UUID, "disk")
		flip(t, tampered)
		got = of(t, report(t, run(t, l, 1, append(args, "--accept-older")...)), v)
		says(t, got.Error, "SHA-256")
		flip(t, tampered)
		if exists(v.Disk) {
			t.Error("a tampered backup was published")
		}
		v.nothingStaged(t)

		heard := len(v.Boots())
		run(t, l, 0, append(args, "--accept-older")...)
		v.isBackFromABackup(t, heard, 2) // the backup is of its first boot
		v.intact(t)
	})
	t.Run("a rescue keeps a backup too", func(t *testing.T) {
		kept := filepath.Join(dir, "kept")
		l.DeleteTree(t)
		heard := len(v.Boots())
		rescue(t, l, 0, "--all", "--backup-dir", kept)
		v.isBackFromABackup(t, heard, 3)
		hasLayout(t, v, kept)
		v.PowerOff(t)
		l.DeleteTree(t)
		run(t, l, 0, "restore", "--all", "--offline", "--from", kept, "--accept-older", "--yes")
		v.isBackFromABackup(t, heard+1, 3) // it ran when the backup was taken
		v.intact(t)
	})
}

// flip changes one byte in the middle of a file, or changes it back.
func flip(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, info.Size()/2)
	must(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b, info.Size()/2)
	must(t, err)
}

// hasLayout checks that a backup lies as the manual way's does, closed to others.
func hasLayout(t *testing.T, v *victim, dir string) {
	t.Helper()
	for _, path := range []string{
		"manifest.json",
		v.UUID + "/disk",
		v.UUID + "/console.log",
		v.UUID + "/disk.eph0",
		v.UUID + "/disk.config",
		"_base/" + filepath.Base(v.Base),
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Errorf("the backup: %v", err)
		} else if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can read %s: %v", path, info.Mode())
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the backup's directory: %v, %v", info, err)
	}
	var stored manifest.Manifest
	body, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	must(t, err)
	decode(t, string(body), &stored)
	n := slices.IndexFunc(stored.Instances, func(i manifest.Instance) bool { return i.UUID == v.UUID })
	if n < 0 {
		t.Fatalf("the manifest does not name the instance:\n%s", body)
	}
	for _, f := range stored.Instances[n].Files {
		if f.SHA256 != digest(t, filepath.Join(dir, f.Stored)) {
			t.Errorf("the manifest's digest of %s is not the file's", f.Stored)
		}
	}
}

// isOwnedAsNovaWants checks the tree before libvirt gives any of it away.
func isOwnedAsNovaWants(t *testing.T, v *victim) {
	t.Helper()
	want := map[string]string{
		lab.InstancesDir:                         "drwxr-xr-x nova:nova",
		lab.BaseDir:                              "drwxr-xr-x nova:nova",
		v.Dir:                                    "drwxr-xr-x nova:nova",
		v.Base:                                   "-rw-r--r-- nova:kvm",
		lab.BaseDir + "/ephemeral_1_40d1d2c":     "-rw-r--r-- nova:kvm",
		v.Disk:                                   "-rw-r--r-- libvirt-qemu:kvm",
		filepath.Join(v.Dir, "disk.eph0"):        "-rw-r--r-- libvirt-qemu:kvm",
		filepath.Join(v.Dir, "disk.config"):      "-rw-r--r-- libvirt-qemu:kvm",
		v.ConsoleLog:                             "-rw-rw---- nova:nova",
		filepath.Join(v.Dir, "disk.info"):        "-rw-r--r-- nova:nova",
		filepath.Join(lab.InstancesDir, "locks"): "drwxr-xr-x nova:nova",
	}
	users, groups := accounts(t, "/etc/passwd"), accounts(t, "/etc/group")
	got := map[string]string{}
	for path := range listing(t, lab.InstancesDir) {
		if filepath.Dir(path) == filepath.Join(lab.InstancesDir, "locks") {
			continue
		}
		info, err := os.Lstat(path)
		must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		got[path] = fmt.Sprintf("%v %s:%s", info.Mode(), users[fmt.Sprint(st.Uid)], groups[fmt.Sprint(st.Gid)])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the published tree (-want +got):\n%s", diff)
	}
}

// accounts returns the names of an account file by number.
func accounts(t *testing.T, file string) map[string]string {
	t.Helper()
	body, err := os.ReadFile(file)
	must(t, err)
	names := map[string]string{}
	for line := range strings.Lines(string(body)) {
		if fields := strings.Split(line, ":"); len(fields) > 2 {
			names[fields[2]] = fields[0]
		}
	}
	return names
}
