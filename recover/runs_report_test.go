package recover

import (
	"os"
	"strings"
	"testing"
	"time"
)

// writtenRun is a run of two instances. A test writes its records one by one.
type writtenRun struct {
	t       *testing.T
	state   stateDir
	id      string
	records *journal
}

// beginRun begins the journal of a run of that mode.
func beginRun(t *testing.T, mode Mode) *writtenRun {
	t.Helper()
	state := stateDir(t.TempDir())
	must(t, state.make())
	id, err := state.newRun(time.Now())
	must(t, err)
	records, _, err := openJournal(state.run(id), nil)
	must(t, err)
	t.Cleanup(func() { records.Close() })
	r := &writtenRun{t: t, state: state, id: id, records: records}
	r.write(Record{Step: stepRun, Phase: PhaseBegin}, runHeader{
		Run:     id,
		Command: CommandRescue,
		Mode:    mode,
		Host:    "node",
		Options: Options{Mode: mode},
	})
	return r
}

func (r *writtenRun) write(rec Record, data any) {
	r.t.Helper()
	must(r.t, r.records.Write(rec, data))
}

// plans writes the plan of the run.
func (r *writtenRun) plans(mode Mode) {
	r.write(Record{Step: stepPlan, Phase: PhaseDone}, Plan{
		Run:     r.id,
		Command: CommandRescue,
		Mode:    mode,
		Host:    "node",
		Instances: []InstancePlan{
			{UUID: testUUID(1), Domain: "instance-1", Action: ActionLive},
			{UUID: testUUID(2), Domain: "instance-2", Action: ActionLive},
		},
	})
}

// begins writes that the work on an instance began, and got as far as a mirror.
func (r *writtenRun) begins(n int) {
	r.write(Record{Instance: testUUID(n), Step: stepInstance, Phase: PhaseBegin}, nil)
	r.write(Record{Instance: testUUID(n), Step: stepReady, Phase: PhaseBegin}, nil)
}

// settles writes the report of an instance.
func (r *writtenRun) settles(n int, outcome Outcome) {
	report := InstanceReport{UUID: testUUID(n), Outcome: outcome, Mode: ModeLive, Bytes: int64(n)}
	r.write(Record{Instance: testUUID(n), Step: stepInstance, Phase: PhaseDone}, settlement{Report: report, Settled: true})
}

// ends writes that the run came to an end.
func (r *writtenRun) ends(interrupted bool) {
	r.write(Record{Step: stepRun, Phase: PhaseDone}, runEnd{Interrupted: interrupted})
}

// locks holds the host's lock for the run until the test ends.
func (r *writtenRun) locks(command Command) {
	f, err := r.state.lock(lockInfo{Run: r.id, Command: command, PID: os.Getpid()})
	must(r.t, err)
	r.t.Cleanup(func() { unlock(f) })
}

func TestAReportSaysTheModeOfItsRunAndWhetherItWasInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		mode        Mode
		happens     func(*writtenRun)
		interrupted bool
		resume      int // instances for which the operator is told to resume the run
	}{
		"a live run that ended": {mode: ModeLive, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.begins(1)
			r.settles(1, OutcomeRescued)
			r.begins(2)
			r.settles(2, OutcomeRescued)
			r.ends(false)
		}},
		"a run of mode auto that ended with an instance skipped": {mode: ModeAuto, happens: func(r *writtenRun) {
			r.plans(ModeAuto)
			r.settles(1, OutcomeRescued)
			r.settles(2, OutcomeSkipped)
			r.ends(false)
		}},
		"killed before its plan": {mode: ModeLive, interrupted: true, happens: func(*writtenRun) {}},
		"killed in the middle": {mode: ModeLive, interrupted: true, resume: 1, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.begins(1)
			r.settles(1, OutcomeRescued)
			r.begins(2)
		}},
		"killed, and being undone": {mode: ModeLive, interrupted: true, resume: 2, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.begins(1)
			r.locks(commandUndo)
		}},
		"stopped before its second instance": {mode: ModeLive, interrupted: true, resume: 1, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.settles(1, OutcomeRescued)
			r.ends(true)
		}},
		"stopped with its second instance put back": {mode: ModeLive, interrupted: true, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.settles(1, OutcomeRescued)
			r.settles(2, OutcomeSkipped)
			r.ends(true)
		}},
		"stopped, then resumed to its end": {mode: ModeLive, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.settles(1, OutcomeRescued)
			r.ends(true)
			r.begins(2)
			r.settles(2, OutcomeRescued)
			r.ends(false)
		}},
		"stopped, then resumed and killed": {mode: ModeLive, interrupted: true, resume: 1, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.settles(1, OutcomeRescued)
			r.ends(true)
			r.begins(2)
		}},
		"under way": {mode: ModeLive, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.settles(1, OutcomeRescued)
			r.begins(2)
			r.locks(CommandRescue)
		}},
		"stopped, and under way again": {mode: ModeLive, happens: func(r *writtenRun) {
			r.plans(ModeLive)
			r.settles(1, OutcomeRescued)
			r.ends(true)
			r.begins(2)
			r.locks(CommandRescue)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := beginRun(t, c.mode)
			c.happens(r)
			report, err := runsOf(string(r.state)).report(r.id)
			must(t, err)
			if report.Run != r.id || report.Mode != c.mode || report.Interrupted != c.interrupted {
				t.Errorf("run %s, mode %q, interrupted %v", report.Run, report.Mode, report.Interrupted)
			}
			resume := 0
			for _, i := range report.Instances {
				if i.Outcome == OutcomeFailed && strings.Contains(i.Error, "os-rescue resume "+r.id) {
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
	r := beginRun(t, ModeLive)
	r.plans(ModeLive)
	says := func(n int, want string) {
		t.Helper()
		report, err := runsOf(string(r.state)).report(r.id)
		must(t, err)
		if len(report.Instances) != 2 {
			t.Fatalf("%+v", report.Instances)
		}
		i := report.Instances[n-1]
		if i.UUID != testUUID(n) || i.Outcome != OutcomeFailed || !strings.Contains(i.Error, want) {
			t.Errorf("%+v; want %q", i, want)
		}
	}
	r.begins(1)
	says(1, "its last journal record is ready.begin: os-rescue resume "+r.id)
	says(2, "not begun: os-rescue resume "+r.id)
	r.locks(CommandRescue)
	says(1, "its last journal record is ready.begin: its run is under way; follow it with: os-rescue status "+r.id)
	r.settles(1, OutcomeRescued)
	report, err := runsOf(string(r.state)).report(r.id)
	must(t, err)
	if i := report.Instances[0]; i.Outcome != OutcomeRescued || i.Mode != ModeLive || i.Bytes != 1 {
		t.Errorf("a settled instance: %+v", i)
	}
}
