package run_test

import (
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// A /run that is full or read-only is no reason to lose a guest's disks.
func TestARunGoesOnWhereTheInstancesDirectoryCantBeLocked(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	recovertest.Must(t, os.WriteFile(h.Settings.RunDir, nil, 0o600)) // where the directory of the locks would be
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(strings.Join(report.Warnings, "\n"), "not kept away") {
		t.Errorf("the warnings are %q", report.Warnings)
	}
}
