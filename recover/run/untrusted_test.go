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
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
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

// Who owns the directory of a backup that is accepted puts a symlink to the instance itself in place of its copies, and
// then the backup fails.
func TestABackupThatFailsRemovesNothingBehindASymlinkOfItsAcceptedOwner(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Config: true})
	dir := accepted(t)
	n := 0
	h.HV.Before = func(method, uuid string) {
		if method != "counters" {
			return
		}
		if n++; n == 2 {
			h.HV.Change(uuid, (*recovertest.FakeDomain).Write)
			swap(t, filepath.Join(dir, uuid), g.Dir)
		}
	}
	_, report := backUp(h, t, func(o *recover.Options) { o.BackupDir, o.AcceptOwner = dir, "+65534" }, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, beneath.ErrSymlink.Error()) &&
		!strings.Contains(r.Error, "is not followed") {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

// The manifest is its owner's word: what a resume removes is what the run's journal names.
func TestAResumeRemovesNothingThatOnlyTheManifestOfAnAcceptedOwnerNames(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	dir := accepted(t)
	o := recovertest.Options(g)
	o.BackupDir, o.AcceptOwner = dir, "+65534"
	id, _ := h.CrashIn(recover.CommandBackup, o, func(e *run.Engine, here func(string)) {
		e.Failpoint = func(point string) {
			if point == "backup.done" {
				here(point)
			}
		}
	})
	m, err := manifest.Read(dir, "+65534")
	recovertest.Must(t, err)
	secrets := t.TempDir()
	recovertest.Must(t, errors.Join(os.WriteFile(filepath.Join(secrets, "passwd"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "own"), nil, 0o600), os.Symlink(secrets, filepath.Join(dir, "x"))))
	for _, stored := range []string{"x/passwd", "own"} {
		f := m.Instances[0].Files[0]
		f.Path, f.Stored = filepath.Join(g.Dir, stored), stored
		m.Instances[0].Files = append(m.Instances[0].Files, f)
	}
	data, err := json.Marshal(m)
	recovertest.Must(t, errors.Join(err, os.WriteFile(filepath.Join(dir, manifest.FileName), data, 0o600)))
	h.HV.Change(g.UUID, (*recovertest.FakeDomain).Write)
	report, err := h.Resume(t.Context(), id)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	for _, path := range []string{filepath.Join(secrets, "passwd"), filepath.Join(dir, "own")} {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

// accepted makes a directory of another user's for a backup.
func accepted(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "backup")
	recovertest.Must(t, errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 65534, 65534)))
	return dir
}

// swap renames a directory away and puts a symlink of that user's in its place.
func swap(t *testing.T, dir, target string) {
	recovertest.Must(t, errors.Join(os.Rename(dir, dir+".away"), os.Symlink(target, dir), os.Lchown(dir, 65534, 65534)))
}
