package run_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// purged is a host with a guest whose whole state_path was removed after a guard had run, and
// where its compute_id was.
func purged(t *testing.T) (h *runtest.Host, v *recovertest.Guest, path string) {
	t.Helper()
	h = runtest.NewHost(t)
	v = h.Add(1, recovertest.GuestOptions{})
	path = h.Settings.ComputeIDPaths[0]
	recovertest.Must(t, os.WriteFile(path, []byte(recovertest.UUID(7)), 0o600))
	recovertest.Must(t, os.Chown(path, 1, 1))
	root, err := beneath.OpenRoot("/")
	recovertest.Must(t, err)
	defer root.Close()
	dir := inventory.In(h.Settings.StateDir)
	recovertest.Must(t, dir.Create())
	recovertest.Must(t, dir.KeepComputeID(root, h.Settings.ComputeIDPaths))
	recovertest.Must(t, os.RemoveAll(filepath.Dir(path)))
	return h, v, path
}

func TestWhatStandsInThePlaceOfAComputeIDIsLeftAlone(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a file":    func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"a FIFO":    func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a symlink": func(path string) error { return os.Symlink("/nowhere", path) },
	} {
		t.Run(name, func(t *testing.T) {
			h, v, path := purged(t)
			recovertest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			recovertest.Must(t, put(path))
			before, err := os.Lstat(path)
			recovertest.Must(t, err)
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
			recovertest.Must(t, err)
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || v.Report(report).Outcome != recover.OutcomeRescued {
				t.Errorf("%v; %+v", err, report)
			}
			if said := strings.Join(report.Warnings, "\n"); !strings.Contains(said, recovertest.UUID(7)) || strings.Contains(said, "put back") {
				t.Errorf("the report says %q", said)
			}
		})
	}
}

// Something may appear after the last look.
func TestAComputeIDNeverReplacesAnotherFile(t *testing.T) {
	h, v, path := purged(t)
	e := h.Engine()
	e.Failpoint = func(point string) {
		if point == "compute-id.begin" {
			recovertest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			recovertest.Must(t, os.WriteFile(path, []byte("mine"), 0o600))
		}
	}
	s, err := e.Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	defer s.Close()
	report, err := s.Execute(t.Context())
	recovertest.Must(t, err)
	if data, err := os.ReadFile(path); string(data) != "mine" || v.Report(report).Outcome != recover.OutcomeRescued {
		t.Errorf("%q, %v; %+v", data, err, report)
	}
	said := strings.Join(report.Warnings, "\n")
	if !strings.Contains(said, "could not be put back") || !strings.Contains(said, recovertest.UUID(7)) {
		t.Errorf("the report says %q", said)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), recover.StagePrefix+"*")); len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestARunThatWasKilledPutsTheComputeIDBackWhenItGoesOn(t *testing.T) {
	h, v, path := purged(t)
	name, point := h.CrashIn(recover.CommandRescue, recovertest.OfflineOptions(v), func(e *run.Engine, here func(string)) {
		e.Failpoint = func(point string) {
			if point == "compute-id.begin" {
				recovertest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
				// As it is left by a kill before the file has its name.
				recovertest.Must(t, os.WriteFile(filepath.Join(filepath.Dir(path), recover.StagePrefix+recover.ComputeIDName), nil, 0o600))
				here(point)
			}
		}
	})
	if point == "" {
		t.Fatal("the run did not put it back")
	}
	report, err := h.Resume(t.Context(), name)
	recovertest.Must(t, err)
	data, err := os.ReadFile(path)
	if string(data) != recovertest.UUID(7) || v.Report(report).Outcome != recover.OutcomeRescued {
		t.Errorf("%q, %v; %+v", data, err, report)
	}
}

// The user may be gone with its package; the table says whose Nova's files are.
func TestAComputeIDWhoseUserIsGoneGetsNovas(t *testing.T) {
	h, v, path := purged(t)
	kept := filepath.Join(h.Settings.StateDir, "guard", "compute_id.json")
	data, err := os.ReadFile(kept)
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(kept, []byte(strings.Replace(string(data), `"user":"daemon"`, `"user":"no-such-user"`, 1)), 0o600))
	h.Settings.Owners.DiskInfo = recover.OwnerRule{User: "nobody", Group: "nogroup", Mode: 0o644}
	h.Settings.Owners.InstancesDir = recover.OwnerRule{User: "bin", Group: "bin", Mode: 0o755}
	_, err = h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	for at, want := range map[string]struct {
		uid  uint32
		mode uint32
	}{path: {65534, 0o644}, filepath.Dir(path): {2, 0o755}} {
		var st unix.Stat_t
		recovertest.Must(t, unix.Lstat(at, &st))
		if st.Uid != want.uid || st.Mode&0o777 != want.mode {
			t.Errorf("%s belongs to %d, %04o", at, st.Uid, st.Mode&0o777)
		}
	}
}

// With Nova, a nova-compute that is down is named together with what keeps it down.
func TestANovaComputeThatCannotStartIsSaidToLackItsComputeID(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T) (*runtest.Host, *recovertest.Guest)
		want    string
	}{
		"the guard has a copy": {func(t *testing.T) (*runtest.Host, *recovertest.Guest) {
			h, v, _ := purged(t)
			return h, v
		}, "is missing"},
		"nobody has seen one": {func(t *testing.T) (*runtest.Host, *recovertest.Guest) {
			h := runtest.NewHost(t)
			v := h.Add(1, recovertest.GuestOptions{})
			h.Purge()
			return h, v
		}, "openstack hypervisor list"},
		"it is in its place": {func(t *testing.T) (*runtest.Host, *recovertest.Guest) {
			h := runtest.NewHost(t)
			v := h.Add(1, recovertest.GuestOptions{})
			h.Purge()
			recovertest.Must(t, os.WriteFile(h.Settings.ComputeIDPaths[0], []byte(recovertest.UUID(7)), 0o600))
			return h, v
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, v := c.prepare(t)
			cloud := h.Online()
			cloud.Services[h.Settings.Host] = recover.ComputeService{Known: true}
			said := h.Planned(v, recover.CommandRescue, recovertest.Options(v)).Refusal
			if !strings.Contains(said, "nova-compute is down") || !strings.Contains(said, c.want) ||
				c.want == "" && strings.Contains(said, recover.ComputeIDName) {
				t.Errorf("it is left alone because %s", said)
			}
		})
	}
}
