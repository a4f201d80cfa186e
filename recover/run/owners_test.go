package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestABackupNeedsNoneOfTheUsersThatFilesAreGivenTo(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	recovertest.Must(t, os.Chown(g.Disk, 1, 54321)) // 54321 has no name
	h.Purge()
	h.Settings.Owners.Disk.User, h.Settings.Owners.InstancesDir.User = "no-such-user", "no-such-user"
	dir, report := backUp(h, t, nil, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	m, err := manifest.Read(dir, "")
	recovertest.Must(t, err)
	for _, f := range m.Instances[0].Files {
		if f.Path == g.Disk && (f.UID != 1 || f.User != "daemon" || f.GID != 54321 || f.Group != "") {
			t.Errorf("the disk's owner is recorded as %+v", f)
		}
	}
	if m.Instances[0].BootID == "" {
		t.Error("the boot is not recorded")
	}
	o := recovertest.Options(g)
	if _, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, o); !errors.Is(err, recover.ErrUnusable) {
		t.Errorf("a rescue without that user: %v", err)
	}
}

// A package that was installed again may have given its user another number.
func TestAFileOutsideTheInstancesDirectoryIsRestoredWithItsOwnersNamesOfToday(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	dir, _ := backUp(h, t, nil, g)
	outside := filepath.Join(filepath.Dir(h.Settings.InstancesPath), "mnt/volume")
	changeManifest(t, dir, func(m *manifest.Manifest) {
		f := m.Instances[0].Files[0]
		f.Path, f.Role, f.Target, f.Writable = outside, recover.RoleBacking, "", false
		f.UID, f.User, f.GID, f.Group, f.Mode = 9999, "daemon", 8888, "no-such-group", 0o640
		m.Instances[0].Files = append(m.Instances[0].Files, f)
	})
	h.Purge()
	o := recovertest.Options(g)
	o.BackupDir = dir
	for _, f := range h.Planned(g, recover.CommandRestore, o).Files {
		if f.Path == outside && (f.UID != 9999 || f.GID != 8888) {
			t.Errorf("with a group that is gone: %d:%d", f.UID, f.GID)
		}
	}
	changeManifest(t, dir, func(m *manifest.Manifest) {
		files := m.Instances[0].Files
		files[len(files)-1].Group = "daemon"
	})
	for _, f := range h.Planned(g, recover.CommandRestore, o).Files {
		if f.Path == outside && (f.UID != 1 || f.GID != 1) {
			t.Errorf("%d:%d", f.UID, f.GID)
		}
	}
}
