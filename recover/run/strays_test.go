package run_test

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// A backup program, say, may have given QEMU an image that no definition names.
func TestADeletedFileThatNoDefinitionNamesOutlivesTheQEMUThatHadIt(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Config: true})
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
		for n, disk := range d.Disks {
			if strings.HasSuffix(disk.Chain[0].Path, "disk.config") {
				d.Disks = append(d.Disks[:n:n], d.Disks[n+1:]...)
				break
			}
		}
	})
	h.Purge()
	if i := h.Scan(g); i.Verdict != recover.VerdictRecoverable || len(i.Strays()) != 1 {
		t.Fatalf("%s %q, strays %+v", i.Verdict, i.Reasons, i.Strays())
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	if g.Pinned() != 1 {
		t.Errorf("%d files are pinned; want the one that nobody else has any more", g.Pinned())
	}
}
