package e2e

import (
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// A run was killed, and a person ends it: its guest goes on as it was found, or its files
// are held on, and another run brings it back.
func TestAKilledRunThatIsEndedByHandLosesNothing(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	for _, point := range []string{"suspend.done", "copy.done", "destroy.done"} {
		t.Run("killed at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			runEnv(t, l, []string{"OS_RESCUE_FAILPOINT=" + point + "=kill"}, 128+9, "--all", "--offline", "--yes")
			killed := interrupted(t, l)
			run(t, l, 2, "resume", "--abandon", killed) // nobody to ask

			var ended recover.Abandonment
			decode(t, run(t, l, 0, "resume", "--abandon", killed, "--release", "--yes", "--output", "json").Stdout, &ended)
			last := 0
			for _, h := range ended.Instances[0].Holdings {
				if h.Last {
					last++
				}
				if h.Last == h.Released {
					t.Errorf("%s", asJSON(t, h))
				}
			}
			destroyed := point == "destroy.done"
			if (last > 0) != destroyed {
				t.Errorf("%d last copies: %s", last, asJSON(t, ended))
			}
			if !destroyed {
				if state := v.State(t); state != "running" {
					t.Errorf("its guest is %s", state)
				}
				v.WaitBeat(t, v.LastBeat()+1)
			}
			var status recover.RunStatus
			decode(t, run(t, l, 0, "status", killed, "--output", "json").Stdout, &status)
			if status.State != recover.RunFinished || !status.Abandoned {
				t.Errorf("%s", asJSON(t, status))
			}
			says(t, run(t, l, 0, "resume", "--yes").Stdout, "No run is unfinished")

			run(t, l, 0, rescueArgs("--all")...)
			if destroyed { // it was off when that run began
				v.Start(t)
			}
			v.isBack(t, 1)
			v.Verify(t)
			run(t, l, 0, "resume", "--abandon", killed, "--release", "--accept-loss", "last-copy", "--yes")
			v.intact(t) // with nothing staged
		})
	}
}

// interrupted returns the name of the only run that is interrupted.
func interrupted(t *testing.T, l *lab.Lab) string {
	t.Helper()
	var names []string
	// Until the process that stood by the run has let its guest go on, the run is under way.
	for end := time.Now().Add(patience.Of(10 * time.Second)); len(names) == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var overview struct {
			Runs []recover.RunStatus `json:"runs"`
		}
		decode(t, run(t, l, 0, "status", "--output", "json").Stdout, &overview)
		for _, r := range overview.Runs {
			if r.State == recover.RunInterrupted {
				names = append(names, r.Run)
			}
		}
	}
	if len(names) != 1 {
		t.Fatalf("the interrupted runs: %v", names)
	}
	return names[0]
}
