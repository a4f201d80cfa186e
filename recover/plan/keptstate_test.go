package plan_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAGuestWhoseStateIsOnlyInMemoryIsNotEnded(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error // nil: nothing stands there
		loss string
		gone bool
	}{
		"the directory of its TPM is gone":  {loss: recover.LossVTPM, gone: true},
		"the directory of its TPM is empty": {func(path string) error { return os.Mkdir(path, 0o700) }, recover.LossVTPM, true},
		"the directory of its TPM has swtpm's lock alone": {func(path string) error {
			return os.MkdirAll(filepath.Join(path, ".lock"), 0o700)
		}, recover.LossVTPM, true},
		"its TPM is there": {func(path string) error {
			return os.MkdirAll(filepath.Join(path, "tpm2-00.permall"), 0o700)
		}, recover.LossVTPM, false},
		"the file of its persistent memory is gone": {loss: recover.LossVPMEM, gone: true},
		"the file of its persistent memory is there": {func(path string) error {
			return os.WriteFile(path, nil, 0o600)
		}, recover.LossVPMEM, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{})
			path := filepath.Join(h.Settings.StateDir, "state")
			if c.make != nil {
				recovertest.Must(t, c.make(path))
			}
			h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
				d.Losses = []string{c.loss}
				d.Kept = []recover.KeptState{{Path: path, What: "its state", Loss: c.loss}}
			})
			refused := func(todo recover.InstancePlan, words ...string) {
				t.Helper()
				if (todo.Action == recover.ActionRefuse) != c.gone {
					t.Fatalf("%s %q", todo.Action, todo.Refusal)
				}
				for _, word := range append(words, path, "in memory", "a later stop", "--accept-loss "+c.loss) {
					if c.gone && !strings.Contains(todo.Refusal, word) {
						t.Errorf("nothing about %q in %q", word, todo.Refusal)
					}
				}
			}
			o := recovertest.Options(g)
			h.Online()
			o.AcceptLoss = nil
			if c.gone {
				refused(h.Planned(g, recover.CommandReboot, o))
			}

			recovertest.Must(t, os.Remove(g.Disk))
			if c.gone {
				refused(h.Planned(g, recover.CommandRescue, o), "--mode live")
			}
			h.Cloud = nil
			refused(h.Planned(g, recover.CommandRescue, o), "--mode live")
			o.NoReboot = true
			refused(h.Planned(g, recover.CommandRescue, o), "--mode live")
			o.NoReboot, o.AcceptLoss = false, []string{c.loss}
			if todo := h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionReboot {
				t.Errorf("its loss is agreed to: %s %s", todo.Action, todo.Refusal)
			}
			o.AcceptLoss, o.Mode = nil, recover.ModeLive
			if todo := h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionLive {
				t.Errorf("live: %s %s", todo.Action, todo.Refusal)
			}
			o.Mode, o.BackupDir = "", filepath.Join(t.TempDir(), "backup")
			if _, err := h.Run(t.Context(), recover.CommandBackup, o); err != nil {
				t.Fatal(err)
			}
			refused(h.Planned(g, recover.CommandRestore, o), "--mode live")
		})
	}
}
