package runs

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// writtenRun is a run of two instances. A test writes its records one by one.
type writtenRun struct {
	t       *testing.T
	state   statedir.Dir
	id      string
	records *journal.Writer
}

// beginRun begins the journal of a run of that mode.
func beginRun(t *testing.T, mode recover.Mode) *writtenRun {
	t.Helper()
	state := statedir.Dir(t.TempDir())
	recovertest.Must(t, state.Make())
	id, err := state.NewRun(time.Now())
	recovertest.Must(t, err)
	records, _, err := journal.Open(state.Run(id), nil)
	recovertest.Must(t, err)
	t.Cleanup(func() { records.Close() })
	r := &writtenRun{t: t, state: state, id: id, records: records}
	r.write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseBegin}, journal.Header{
		Run:     id,
		Command: recover.CommandRescue,
		Mode:    mode,
		Host:    "node",
		Options: recover.Options{Mode: mode},
	})
	return r
}

func (r *writtenRun) write(rec journal.Record, data any) {
	r.t.Helper()
	recovertest.Must(r.t, r.records.Write(rec, data))
}

// plans writes the plan of the run.
func (r *writtenRun) plans(mode recover.Mode) {
	r.write(journal.Record{Step: journal.StepPlan, Phase: recover.PhaseDone}, recover.Plan{
		Run:     r.id,
		Command: recover.CommandRescue,
		Mode:    mode,
		Host:    "node",
		Instances: []recover.InstancePlan{
			{UUID: recovertest.UUID(1), Domain: "instance-1", Action: recover.ActionLive},
			{UUID: recovertest.UUID(2), Domain: "instance-2", Action: recover.ActionLive},
		},
	})
}

// begins writes that the work on an instance began, and got as far as a mirror.
func (r *writtenRun) begins(n int) {
	r.write(journal.Record{Instance: recovertest.UUID(n), Step: journal.StepInstance, Phase: recover.PhaseBegin}, nil)
	r.write(journal.Record{Instance: recovertest.UUID(n), Step: journal.StepReady, Phase: recover.PhaseBegin}, nil)
}

// settles writes the report of an instance.
func (r *writtenRun) settles(n int, outcome recover.Outcome) {
	report := recover.InstanceReport{UUID: recovertest.UUID(n), Outcome: outcome, Mode: recover.ModeLive, Bytes: int64(n)}
	r.write(journal.Record{Instance: recovertest.UUID(n), Step: journal.StepInstance, Phase: recover.PhaseDone},
		journal.Settlement{Report: report, Settled: true})
}

// leaves writes the report of an instance that a resume goes on with.
func (r *writtenRun) leaves(n int) {
	report := recover.InstanceReport{UUID: recovertest.UUID(n), Outcome: recover.OutcomeFailed, Error: "its files are not back yet"}
	r.write(
		journal.Record{Instance: recovertest.UUID(n), Step: journal.StepInstance, Phase: recover.PhaseDone},
		journal.Settlement{Report: report},
	)
}

// ends writes that the run came to an end.
func (r *writtenRun) ends(interrupted bool) {
	r.write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseDone}, journal.End{Interrupted: interrupted})
}

// locks holds the host's lock for the run until the test ends.
func (r *writtenRun) locks(command recover.Command) {
	f, err := r.state.Lock(statedir.LockInfo{Run: r.id, Command: command, PID: os.Getpid()})
	recovertest.Must(r.t, err)
	r.t.Cleanup(func() { statedir.Unlock(f) })
}

func TestAReportSaysTheModeOfItsRunAndWhetherItWasInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		mode        recover.Mode
		happens     func(*writtenRun)
		interrupted bool
		resume      int // instances for which the operator is told to resume the run
	}{
		"a live run that ended": {mode: recover.ModeLive, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.begins(1)
			r.settles(1, recover.OutcomeRescued)
			r.begins(2)
			r.settles(2, recover.OutcomeRescued)
			r.ends(false)
		}},
		"a run of mode auto that ended with an instance skipped": {mode: recover.ModeAuto, happens: func(r *writtenRun) {
			r.plans(recover.ModeAuto)
			r.settles(1, recover.OutcomeRescued)
			r.settles(2, recover.OutcomeSkipped)
			r.ends(false)
		}},
		"a run that ended and left an instance for a resume": {mode: recover.ModeReboot, happens: func(r *writtenRun) {
			r.plans(recover.ModeReboot)
			r.settles(1, recover.OutcomeRescued)
			r.leaves(2)
			r.ends(false)
		}},
		"killed before its plan": {mode: recover.ModeLive, interrupted: true, happens: func(*writtenRun) {}},
		"killed in the middle": {mode: recover.ModeLive, interrupted: true, resume: 1, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.begins(1)
			r.settles(1, recover.OutcomeRescued)
			r.begins(2)
		}},
		"killed, and being undone": {mode: recover.ModeLive, interrupted: true, resume: 2, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.begins(1)
			r.locks(statedir.CommandUndo)
		}},
		"stopped before its second instance": {mode: recover.ModeLive, interrupted: true, resume: 1, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.settles(1, recover.OutcomeRescued)
			r.ends(true)
		}},
		"stopped with its second instance put back": {mode: recover.ModeLive, interrupted: true, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.settles(1, recover.OutcomeRescued)
			r.settles(2, recover.OutcomeSkipped)
			r.ends(true)
		}},
		"stopped, then resumed to its end": {mode: recover.ModeLive, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.settles(1, recover.OutcomeRescued)
			r.ends(true)
			r.begins(2)
			r.settles(2, recover.OutcomeRescued)
			r.ends(false)
		}},
		"stopped, then resumed and killed": {mode: recover.ModeLive, interrupted: true, resume: 1, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.settles(1, recover.OutcomeRescued)
			r.ends(true)
			r.begins(2)
		}},
		"under way": {mode: recover.ModeLive, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.settles(1, recover.OutcomeRescued)
			r.begins(2)
			r.locks(recover.CommandRescue)
		}},
		"stopped, and under way again": {mode: recover.ModeLive, happens: func(r *writtenRun) {
			r.plans(recover.ModeLive)
			r.settles(1, recover.OutcomeRescued)
			r.ends(true)
			r.begins(2)
			r.locks(recover.CommandRescue)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := beginRun(t, c.mode)
			c.happens(r)
			report, err := Of(string(r.state)).Report(r.id)
			recovertest.Must(t, err)
			if report.Run != r.id || report.Mode != c.mode || report.Interrupted != c.interrupted {
				t.Errorf("run %s, mode %q, interrupted %v", report.Run, report.Mode, report.Interrupted)
			}
			raw, err := json.Marshal(report)
			recovertest.Must(t, err)
			if has := strings.Contains(string(raw), `"finished"`); has != !report.Finished.IsZero() {
				t.Errorf("finished %v, in JSON: %s", report.Finished, raw)
			}
			resume := 0
			for _, i := range report.Instances {
				if i.Outcome == recover.OutcomeInterrupted && strings.Contains(i.Error, "os-rescue resume "+r.id) {
					resume++
				}
			}
			if resume != c.resume {
				t.Errorf("%d instances need a resume, not %d: %+v", resume, c.resume, report.Instances)
			}
		})
	}
}

func TestAReportSaysOfEachInstanceHowFarItCame(t *testing.T) {
	r := beginRun(t, recover.ModeLive)
	r.plans(recover.ModeLive)
	says := func(n int, outcome recover.Outcome, want string) {
		t.Helper()
		report, err := Of(string(r.state)).Report(r.id)
		recovertest.Must(t, err)
		if len(report.Instances) != 2 {
			t.Fatalf("%+v", report.Instances)
		}
		i := report.Instances[n-1]
		if i.UUID != recovertest.UUID(n) || i.Outcome != outcome || !strings.Contains(i.Error+strings.Join(i.Notes, ""), want) {
			t.Errorf("%+v; want %q", i, want)
		}
	}
	r.begins(1)
	says(1, recover.OutcomeInterrupted, "its last journal record is ready.begin. Go on with: os-rescue resume "+r.id)
	says(2, recover.OutcomeInterrupted, "before it began with it. Go on with: os-rescue resume "+r.id)
	r.locks(recover.CommandRescue)
	says(1, recover.OutcomeUnderWay, "its last journal record is ready.begin; follow it with: os-rescue status "+r.id)
	says(2, recover.OutcomeNotBegun, "")
	r.leaves(1) // by an earlier try: this one has not said a word of it
	says(1, recover.OutcomeUnderWay, "follow it with: os-rescue status "+r.id)
	r.settles(1, recover.OutcomeRescued)
	report, err := Of(string(r.state)).Report(r.id)
	recovertest.Must(t, err)
	if i := report.Instances[0]; i.Outcome != recover.OutcomeRescued || i.Mode != recover.ModeLive || i.Bytes != 1 {
		t.Errorf("a settled instance: %+v", i)
	}
}
