package run_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// A backup that names a file which nothing gives its instance: root's hand would write it.
func TestARestoreWritesOnlyWhatTheInstanceHas(t *testing.T) {
	for name, c := range map[string]struct {
		role   recover.Role
		forget bool // libvirt knows no domain
	}{
		"a file that its domain does not name":          {recover.RoleOther, false},
		"a disk that its domain does not name":          {recover.RoleDisk, false},
		"a backing file of nothing":                     {recover.RoleBacking, false},
		"a file that no domain names, of a domain gone": {recover.RoleOther, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			dir, _ := backUp(h, t, nil, g)
			elsewhere := filepath.Join(t.TempDir(), "cron")
			m, err := manifest.Read(dir, "")
			recovertest.Must(t, err)
			planted := m.Instances[0].Files[0]
			planted.Path, planted.Role = elsewhere, c.role
			m.Instances[0].Files = append(m.Instances[0].Files, planted)
			data, err := json.Marshal(m)
			recovertest.Must(t, err)
			recovertest.Must(t, os.WriteFile(filepath.Join(dir, manifest.FileName), data, 0o600))
			g.Destroyed()
			h.Purge()
			h.KillKeeper()
			if c.forget {
				h.HV.Forget(g.UUID)
			}
			o := recovertest.Options(g)
			o.BackupDir, o.AcceptOlder = dir, true
			report, err := h.Run(t.Context(), recover.CommandRestore, o)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, elsewhere) {
				t.Errorf("%+v", r)
			}
			if _, err := os.Lstat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
				t.Error("it was written")
			}
		})
	}
}

func TestABackupOfAnotherUsersIsNeitherRestoredNorAddedTo(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	dir, _ := backUp(h, t, nil, g)
	recovertest.Must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, 65534, 65534))
	}))
	h.Purge()
	o := recovertest.Options(g)
	o.BackupDir, o.AcceptOlder = dir, true
	for _, command := range []recover.Command{recover.CommandRestore, recover.CommandBackup, recover.CommandRescue} {
		s, err := h.Engine().Prepare(t.Context(), command, o)
		if s != nil || !errors.Is(err, recover.ErrUsage) || !errors.Is(err, manifest.ErrUntrusted) {
			t.Errorf("%s: %v", command, err)
		}
	}
	o.AcceptOwner = "+65534"
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("its owner is accepted: %+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}
