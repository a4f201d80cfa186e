package run_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// noted has the host's guard have noted that it holds the file of a path for a guest whose files
// were deleted, as it is now.
func noted(h *runtest.Host, g *recovertest.Guest, path string) {
	dir := inventory.In(h.Settings.StateDir)
	recovertest.Must(h.T, dir.Create())
	st, err := identity.At(unix.AT_FDCWD, path, 0)
	recovertest.Must(h.T, err)
	boot, err := procfs.BootID(procfs.Dir)
	recovertest.Must(h.T, err)
	note := inventory.Note{Device: st.Dev, Inode: st.Ino, Birth: st.Birth, Path: path, Owners: []string{g.UUID}, Role: recover.RoleDisk,
		Deleted: time.Now(), Needed: true}
	data, err := json.Marshal(map[string]any{"boot_id": boot, "holds": []inventory.Note{note}})
	recovertest.Must(h.T, err)
	recovertest.Must(h.T, os.WriteFile(dir.File("holds.json"), data, 0o600))
}

func incident(h *runtest.Host, g *recovertest.Guest) {
	dir := inventory.In(h.Settings.StateDir)
	recovertest.Must(h.T, dir.Create())
	d, err := h.HV.Domain(h.T.Context(), g.UUID)
	recovertest.Must(h.T, err)
	accident := &inventory.Incident{Since: time.Now(), Found: recover.StateRunning}
	recovertest.Must(h.T, dir.Write(inventory.Record{Domain: d, Incident: accident}))
}

var refusing = polite(func(_ string, send func(string) bool) { send(`{"error":"I would prefer not to"}`) })

// What a guard alone holds, which can't be asked, may be newer than what stands there.
func TestAnInstanceOfWhichOnlyAFailedGuardMayHoldMoreIsUnknown(t *testing.T) {
	older := func(g *recovertest.Guest) {
		recovertest.Must(t, os.Rename(g.Disk, g.Disk+".gone"))
		recovertest.Must(t, os.WriteFile(g.Disk, recovertest.Payload(7, 96<<10), 0o600))
	}
	for name, c := range map[string]struct {
		prepare func(h *runtest.Host, g *recovertest.Guest)
		want    recover.Verdict
	}{
		"nothing is noted": {func(*runtest.Host, *recovertest.Guest) {}, recover.VerdictIntact},
		"its disk is held, an older one is there": {func(h *runtest.Host, g *recovertest.Guest) {
			g.Destroyed()
			noted(h, g, g.Disk)
			older(g)
		}, recover.VerdictUnknown},
		"its disk is held, nothing is there": {func(h *runtest.Host, g *recovertest.Guest) {
			g.Destroyed()
			noted(h, g, g.Disk)
			recovertest.Must(t, os.Rename(g.Disk, g.Disk+".gone"))
		}, recover.VerdictUnknown},
		"its disk is there again": {func(h *runtest.Host, g *recovertest.Guest) {
			g.Destroyed()
			noted(h, g, g.Disk)
			incident(h, g)
		}, recover.VerdictIntact},
		"off with an incident": {func(h *runtest.Host, g *recovertest.Guest) {
			g.Destroyed()
			incident(h, g)
		}, recover.VerdictUnknown},
		"undefined with an incident": {func(h *runtest.Host, g *recovertest.Guest) {
			incident(h, g)
			g.Forgotten()
		}, recover.VerdictUnknown},
		"it runs on an older one": {func(h *runtest.Host, g *recovertest.Guest) {
			noted(h, g, g.Disk)
			g.Destroyed()
			older(g)
			recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
		}, recover.VerdictUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			h, all := rebootHost(t, 1)
			g := all[0]
			c.prepare(h, g)
			badGuard(h, 0, refusing)
			i := h.Scan(g)
			if i.Verdict != c.want {
				t.Fatalf("it is %s: %v", i.Verdict, i.Reasons)
			}
			todo := h.Planned(g, recover.CommandReboot, recovertest.Options(g))
			if c.want == recover.VerdictIntact {
				if todo.Action != recover.ActionHardReboot {
					t.Errorf("%s: %s", todo.Action, todo.Refusal)
				}
				return
			}
			if says := strings.Join(append(i.Reasons, i.Possible...), "; "); !strings.Contains(says, "systemctl restart os-rescue-guard") {
				t.Errorf("it says %s", says)
			}
			if todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, "the guard holds") {
				t.Errorf("%s: %s", todo.Action, todo.Refusal)
			}
			if report, err := h.Run(t.Context(), recover.CommandReboot, recovertest.Options(g)); err != nil || h.Cloud.Called("HardReboot", "") > 0 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
}

func TestARunningGuestIsRescuedWhateverAFailedGuardHolds(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	incident(h, g)
	noted(h, g, g.Disk)
	h.Purge()
	badGuard(h, 0, refusing)
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	if i := ran.Instances[0]; i.Outcome != recover.OutcomeRescued {
		t.Fatalf("%s: %s", i.Outcome, i.Error)
	}
	recovertest.Must(t, g.Back())
	if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
		t.Errorf("a proven copy of what is noted is there, and it is %s: %v", i.Verdict, i.Reasons)
	}
}

func TestWhatAKeeperHoldsWithoutAReadableRecordIsNotLost(t *testing.T) {
	for moved, want := range map[bool]recover.Verdict{false: recover.VerdictRecoverable, true: recover.VerdictUnknown} {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		c, err := keeper.Start(t.Context(), keeper.Options{Dir: h.Settings.StateDir, Command: h.Settings.KeeperCommand})
		recovertest.Must(t, err)
		defer c.Close()
		keeperOf(t, h)
		f, err := os.Open(g.Disk)
		recovertest.Must(t, err)
		key, err := keeper.Key(f)
		recovertest.Must(t, err)
		recovertest.Must(t, c.Hold(t.Context(), g.UUID, key, []byte(`[7]`), f))
		recovertest.Must(t, f.Close())
		g.Destroyed()
		if moved {
			recovertest.Must(t, os.Rename(g.Disk, g.Disk+".old"))
			recovertest.Must(t, os.Remove(g.Disk+".old"))
		}
		g.Rm()
		if i := h.Scan(g); i.Verdict != want {
			t.Errorf("renamed before (%t), it is %s: %v", moved, i.Verdict, i.Reasons)
		}
	}
}
