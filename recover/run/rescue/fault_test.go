package rescue_test

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/backup"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/hardreboot"
	"github.com/os-rescue/os-rescue/recover/run/rescue"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// work returns the task of rescuing a guest of a host offline, whose files are pinned,
// and its restoration.
func work(t *testing.T, h *runtest.Host, g *recovertest.Guest) (*task.Task, *rescue.Restoration) {
	t.Helper()
	plan, err := h.Engine().DryRun(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	recovertest.Must(t, h.State().Make())
	plan.Run, err = h.State().NewRun(plan.Created)
	recovertest.Must(t, err)
	log, _, err := journal.Open(h.State().Run(plan.Run), nil)
	recovertest.Must(t, err)
	t.Cleanup(func() { log.Close() })
	root, err := beneath.OpenRoot(h.Settings.Root)
	recovertest.Must(t, err)
	t.Cleanup(func() { root.Close() })
	table, err := owners.Resolve(h.Settings, root)
	recovertest.Must(t, err)
	pins := pin.NewCustody(pin.CustodyOptions{
		StateDir:      h.Settings.StateDir,
		KeeperCommand: h.Settings.KeeperCommand,
		Run:           plan.Run,
		SameBoot:      true,
		Log:           log,
	})
	t.Cleanup(pins.Close)
	recovertest.Must(t, pins.Pin(t.Context(), h.Scan(g)))
	r := &task.Run{
		Settings:   h.Settings,
		Hypervisor: h.HV,
		Progress:   recover.NoProgress{},
		Plan:       plan,
		Log:        log,
		StateDir:   h.State(),
		Root:       root,
		Owners:     table,
		Pins:       pins,
		Scan:       h.Scanner().Domain,
	}
	dirs, once := staging.NewDirectories(root, h.Settings), staging.NewOnce()
	t.Cleanup(dirs.Close)
	w := task.New(r, h.Planned(g, recover.CommandRescue, recovertest.OfflineOptions(g)))
	domain := guest.New(w, func() (string, error) { return "", nil })
	files := staging.NewSet(w, dirs, once)
	return w, rescue.New(w, domain, files, backup.New(w, domain, nil, once), hardreboot.New(w, domain, files))
}

// TestAfterTheDestroyAnImpossibleEventKeepsNoFileFromItsPath: it is a fault of
// os-rescue, which is logged; the guest must have its files, and run, all the same.
func TestAfterTheDestroyAnImpossibleEventKeepsNoFileFromItsPath(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
	h.Purge()
	w, restoration := work(t, h, g)
	log := &strings.Builder{}
	ctx := zerolog.New(log).WithContext(t.Context())
	h.HV.Before = func(method, _ string) {
		if method == "destroy" { // so that it is destroyed twice, for all that the task knows
			recovertest.Must(t, w.Enter(ctx, task.EventDestroy))
		}
	}
	recovertest.Must(t, restoration.CarryOut(ctx))
	recovertest.Must(t, g.Serving(recover.StateRunning))
	if said := log.String(); strings.Count(said, "a fault of os-rescue") != 1 || !strings.Contains(said, string(task.EventDestroy)) {
		t.Errorf("logged: %s", said)
	}
}

// TestBeforeTheDestroyAnImpossibleEventLeavesTheGuestAsItWasFound: the work stops, and
// all of it can be undone.
func TestBeforeTheDestroyAnImpossibleEventLeavesTheGuestAsItWasFound(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	pid := h.HV.Get(g.UUID).PID
	w, restoration := work(t, h, g)
	h.HV.Before = func(method, _ string) {
		if method == "xml" { // right before it is suspended: for the second time, for all that the task knows
			recovertest.Must(t, w.Enter(t.Context(), task.EventSuspend))
		}
	}
	if err := restoration.CarryOut(t.Context()); err == nil || w.State().IsCommitted() {
		t.Fatalf("%v, %q", err, w.State())
	}
	recovertest.Must(t, w.Rollback(t.Context()))
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}
