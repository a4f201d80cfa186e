package run_test

import (
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// withStray makes a guest whose QEMU has an image open that no definition names: a backup program,
// say, may have given it that.
func withStray(h *runtest.Host, o recovertest.GuestOptions) *recovertest.Guest {
	o.Config = true
	g := h.Add(1, o)
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
		for n, disk := range d.Disks {
			if strings.HasSuffix(disk.Chain[0].Path, "disk.config") {
				d.Disks = append(d.Disks[:n:n], d.Disks[n+1:]...)
				break
			}
		}
	})
	return g
}

// strayHeld checks that the stray is held and nothing else, and that the report says so.
func strayHeld(t *testing.T, g *recovertest.Guest, r recover.InstanceReport) {
	t.Helper()
	if r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	if g.Pinned() != 1 {
		t.Errorf("%d files are pinned; want the one that nobody else has any more", g.Pinned())
	}
	said := strings.Join(r.Notes, "\n")
	if !strings.Contains(said, "disk.config") || !strings.Contains(said, "os-rescue keeper release "+g.UUID) {
		t.Errorf("the report does not say what stays held, and how it is let go: %q", r.Notes)
	}
}

func TestADeletedFileThatNoDefinitionNamesOutlivesTheQEMUThatHadIt(t *testing.T) {
	h := runtest.NewHost(t)
	g := withStray(h, recovertest.GuestOptions{})
	h.Purge()
	if i := h.Scan(g); i.Verdict != recover.VerdictRecoverable || len(i.Strays()) != 1 {
		t.Fatalf("%s %q, strays %+v", i.Verdict, i.Reasons, i.Strays())
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	strayHeld(t, g, g.Report(report))
}

// Its QEMU has it still after a live rescue, as it would without one, and the keeper lets go. Where the guest
// ends in the middle, or after the move, the keeper has it alone.
func TestADeletedFileThatNoDefinitionNamesOutlivesALiveRescue(t *testing.T) {
	for name, method := range map[string]string{
		"while it is mirrored": "mirror-state",
		"after the move":       "end-export",
		"it runs on":           "",
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := withStray(h, recovertest.GuestOptions{Base: "b"})
			h.Purge()
			ended := false
			h.HV.Before = func(called, uuid string) {
				if called == method && !ended {
					ended = true
					h.HV.Change(uuid, (*recovertest.FakeDomain).Off)
				}
			}
			o := recovertest.Options(g)
			o.Mode = recover.ModeLive
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if method != "" && ended {
				strayHeld(t, g, r)
				return
			}
			if method != "" || r.Outcome != recover.OutcomeRescued || g.Pinned() != 0 {
				t.Errorf("ended: %v; %d files are pinned; %+v", ended, g.Pinned(), r)
			}
		})
	}
}

// What a guest only reads, and what has a name still, comes back while it runs. Here the guest ends before
// that is over.
func TestADeletedFileThatNoDefinitionNamesOutlivesARescueOfARunningGuest(t *testing.T) {
	for name, lose := range map[string]func(g *recovertest.Guest) error{
		"put back": func(g *recovertest.Guest) error { return os.Remove(g.Base) },
		"link back": func(g *recovertest.Guest) error {
			if err := os.Link(g.Disk, g.H.Settings.InstancesPath+"/kept"); err != nil {
				return err
			}
			return os.Remove(g.Disk)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := withStray(h, recovertest.GuestOptions{Base: "b"})
			recovertest.Must(t, os.Remove(g.Dir+"/disk.config"))
			recovertest.Must(t, lose(g))
			e := h.Engine()
			e.Failpoint = func(point string) {
				if point == "confirm.begin" {
					h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
				}
			}
			strayHeld(t, g, g.Report(executed(t, e, recovertest.OfflineOptions(g))))
		})
	}
}

// A run that pinned it has ended, the guest too, and another run puts the disk back.
func TestADeletedFileThatNoDefinitionNamesOutlivesTheRescueOfAGuestThatIsOff(t *testing.T) {
	h := runtest.NewHost(t)
	g := withStray(h, recovertest.GuestOptions{})
	h.Purge()
	o := recovertest.OfflineOptions(g)
	name, point := h.CrashAt(recover.CommandRescue, o, 12)
	if g.Pinned() != 2 {
		t.Fatalf("%d files are pinned at %s", g.Pinned(), point)
	}
	_, err := h.Abandon(t.Context(), name, recover.AbandonChoice{})
	recovertest.Must(t, err)
	g.Destroyed()
	if todo := h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionPublish {
		t.Fatalf("planned: %s %s", todo.Action, todo.Refusal)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	strayHeld(t, g, g.Report(report))
	// Another run finds nothing to do, and does not let it go either.
	_, err = h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if g.Pinned() != 1 {
		t.Errorf("after another run %d files are pinned", g.Pinned())
	}
}
