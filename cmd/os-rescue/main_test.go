package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/recover"
)

// call is one call of the program in a test.
type call struct {
	args        string
	env         map[string]string
	stdin       string
	answers     io.Reader // instead of stdin
	interactive bool
	notRoot     bool
	signals     chan os.Signal
	stdout      io.Writer // instead of a buffer
	connectErr  error
}

type outcome struct {
	code        int
	out, err    string
	withLibvirt bool
	config      config.Config
}

func do(t *testing.T, f *fake, c call) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	var o outcome
	var mu sync.Mutex // a check that hangs runs on after the test
	env := map[string]string{"OS_RESCUE_NOVA_CONF": novaConf(t)}
	for k, v := range c.env {
		env[k] = v
	}
	sys := system{
		args: strings.Fields(c.args), env: env, stdin: strings.NewReader(c.stdin), stdout: &stdout, stderr: &stderr,
		isRoot: !c.notRoot, hostname: "this-host", signals: c.signals, interactive: c.interactive,
		connect: func(_ context.Context, k connection) (engine, func(), error) {
			mu.Lock()
			defer mu.Unlock()
			o.withLibvirt, o.config = k.libvirt, k.config
			return engine{scanner: f, runner: f, history: f, guards: f}, func() { f.called("disconnect") }, c.connectErr
		},
	}
	if c.answers != nil {
		sys.stdin = c.answers
	}
	if c.stdout != nil {
		sys.stdout = c.stdout
	}
	code := carryOut(sys)
	mu.Lock()
	defer mu.Unlock()
	o.code, o.out, o.err = code, stdout.String(), stderr.String()
	return o
}

// novaConf keeps a test from reading the nova.conf of the machine it runs on.
func novaConf(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/nova.conf"
	if err := os.WriteFile(path, []byte("[DEFAULT]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func disruptive() recover.Plan {
	return recover.Plan{Run: "r1", Command: recover.CommandRescue, Host: "h", Instances: []recover.InstancePlan{
		{UUID: "u1", Domain: "instance-00000001", Action: recover.ActionReboot},
		{UUID: "u2", Domain: "instance-00000002", Action: recover.ActionPutBack},
	}}
}

func TestBadUsageIsExit2AndTouchesNothing(t *testing.T) {
	for args, want := range map[string]string{
		"":                                                  "give exactly one of",
		"--all --project x --offline":                       "give exactly one of",
		"--all --project-domain d":                          "--project-domain needs --project",
		"--all --accept-loss nvrams":                        "must be one of nvram, vtpm, vpmem, saved-memory",
		"--all --accept-loss nvram,disk":                    `--accept-loss is "disk"`,
		"--all --holder 0":                                  "--holder is 0",
		"--all --holder qemu":                               "invalid argument",
		"--all --offline --mode lively":                     "one of reboot, live, auto",
		"--all --offline --verify half":                     "one of running, full, structure",
		"--all --offline --verify structure":                "mode reboot compares in full and can do nothing else",
		"--all --verify running --mode reboot":              "mode reboot compares in full",
		"--all --mode live --no-reboot":                     "mode live never ends one",
		"--all --mode live --bandwidth -1":                  "a number of bytes",
		"--all --mode live --timeout -1s":                   "from 0s to 168h",
		"backup --all --to /b --mode live":                  "unknown flag",
		"restore --from /b --verify full":                   "unknown flag",
		"reboot --all --mode live":                          "unknown flag",
		"resume --mode live":                                "unknown flag",
		"--all --mode live --bandwidth fast":                "a number of bytes",
		"--all --mode live --timeout 5":                     "a time with its unit",
		"--all --mode live --max-pause 0s":                  "from 1s to 1h",
		"--all --offline --output xml":                      "must be text or json",
		"--all --offline --parallel 0":                      "1 to 64",
		"--all --offline --parallel x":                      "invalid argument",
		"--all --offline --log-level loud":                  "--log-level",
		"--all --offline --log-format xml":                  "--log-format",
		"--all --offline --config /nonexistent":             "/nonexistent",
		"--bogus":                                           "unknown flag",
		"scna":                                              "scan",
		"scan extra":                                        "",
		"backup --all":                                      "give --to DIR",
		"backup --to /b":                                    "give exactly one of",
		"restore --project x":                               "give --from DIR",
		"reboot":                                            "give exactly one of",
		"reboot --all --offline":                            "unknown flag",
		"reboot --all --parallel 2":                         "unknown flag",
		"reboot --all --max-parallel 0":                     "1 to 64",
		"reboot --all --state STOPPED":                      "must be one of ACTIVE, SHUTOFF",
		"reboot --all --batch-size 0":                       "must be 1 or more",
		"reboot --all --batch-size -3":                      "must be 1 or more",
		"reboot --all --batch-wait 1m":                      "give --batch-size too",
		"reboot --all --batch-wait -1m":                     "must not be negative",
		"reboot --all --batch-wait 60":                      "invalid argument",
		"reboot --all --timeout 0s":                         "must be 1s or more",
		"reboot --all --scan-max-age 0s":                    "must be 1s or more",
		"reboot --all --accept-loss everything":             "must be one of nvram",
		"reboot --all --scan-report /nope":                  "--scan-report /nope",
		"reboot --all --scan-report -":                      "add --yes",
		"backup --all --to /b --host h":                     "unknown flag",
		"restore --from /b --project-domain d":              "unknown flag",
		"resume --project x":                                "unknown flag",
		"resume --abandon":                                  "resume --abandon RUN",
		"resume r1 --release":                               "add --abandon",
		"resume r1 --abandon --keep --release":              "exclude each other",
		"resume r1 --abandon --accept-loss last-copy":       "is for --release",
		"resume r1 --abandon --release --accept-loss nvram": "must be last-copy",
		"report":     "",
		"resume a b": "",
		"keeper":     "dir",
	} {
		f := &fake{}
		o := do(t, f, call{args: args})
		if o.code != exitUsage || !strings.Contains(o.err, want) || o.out != "" || len(f.calls) > 0 {
			t.Errorf("%q: exit %d, stdout %q, stderr %q, calls %v; want exit 2 and %q", args, o.code, o.out, o.err, f.calls, want)
		}
	}
}

func TestEverythingButHelpAndVersionNeedsRoot(t *testing.T) {
	for _, args := range []string{
		"scan", "status", "report r1", "resume", "--all", "--all --offline", "reboot --all", "backup --all --to /b", "restore --from /b",
		"keeper --dir /x",
	} {
		if o := do(t, &fake{}, call{args: args, notRoot: true}); o.code != exitUnusable || !strings.Contains(o.err, "root") {
			t.Errorf("%s: exit %d, %q", args, o.code, o.err)
		}
	}
	for _, args := range []string{"version", "completion bash", "help", "--help", "scan --help", "man " + t.TempDir()} {
		if o := do(t, &fake{}, call{args: args, notRoot: true}); o.code != exitOK {
			t.Errorf("%s: exit %d, %q", args, o.code, o.err)
		}
	}
}

func TestARunThatDisturbsGuestsNeedsConsent(t *testing.T) {
	const executed, abandoned = "prepare execute close disconnect", "prepare abandon close disconnect"
	quiet := recover.Plan{Instances: []recover.InstancePlan{{UUID: "u2", Domain: "d2", Action: recover.ActionPutBack}}}
	for _, c := range []struct {
		name  string
		plan  recover.Plan
		call  call
		code  int
		calls string
		err   string
	}{
		{"no terminal", disruptive(), call{}, exitUsage, abandoned, "instance-00000001: add --yes"},
		{"no terminal, --yes", disruptive(), call{args: "--yes"}, exitOK, executed, ""},
		{"yes", disruptive(), call{interactive: true, stdin: "yes\n"}, exitOK, executed, "Type yes to go on"},
		{"y is not yes", disruptive(), call{interactive: true, stdin: "y\n"}, exitUnrescued, abandoned, "nothing was changed"},
		{"end of input", disruptive(), call{interactive: true}, exitUnrescued, abandoned, "nothing was changed"},
		{"put back alone asks nobody", quiet, call{}, exitOK, executed, ""},
		{"nothing to do asks nobody", recover.Plan{}, call{interactive: true}, exitOK, executed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{plan: c.plan}
			c.call.args += " --all --offline"
			o := do(t, f, c.call)
			if o.code != c.code || strings.Join(f.calls, " ") != c.calls || !strings.Contains(o.err, c.err) {
				t.Errorf("exit %d, calls %v, stderr %q", o.code, f.calls, o.err)
			}
		})
	}
}

func TestThePlanIsShownBeforeTheQuestionAndTheResultAloneIsOnStdout(t *testing.T) {
	o := do(t, &fake{plan: disruptive()}, call{args: "--all --offline --output json", interactive: true, stdin: "yes\n"})
	if !strings.Contains(o.err, "Plan of a rescue") || strings.Index(o.err, "Plan of") > strings.Index(o.err, "Type yes") {
		t.Errorf("stderr: %q", o.err)
	}
	if !strings.HasPrefix(o.out, "{") || strings.Contains(o.out, "Plan of") {
		t.Errorf("stdout: %q", o.out)
	}
}

func TestADryRunPreparesNothing(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		f := &fake{plan: disruptive()}
		o := do(t, f, call{args: "--all --offline --dry-run --output " + output})
		if o.code != exitOK || strings.Join(f.calls, " ") != "dry-run disconnect" || !strings.Contains(o.out, "instance-00000001") {
			t.Errorf("exit %d, calls %v, stdout %q", o.code, f.calls, o.out)
		}
	}
}

func TestFlagsBecomeOptions(t *testing.T) {
	for _, c := range []struct {
		args    string
		command recover.Command
		want    recover.Options
	}{
		{"--instance a --instance b --offline --backup-dir /b --parallel 7 --replace-existing --no-reboot --accept-shared", recover.CommandRescue,
			recover.Options{Selection: recover.Selection{Instances: []string{"a", "b"}}, Parallel: 7, ReplaceExisting: true, BackupDir: "/b",
				NoReboot: true, AcceptShared: true, Offline: true}},
		{"--project shop", recover.CommandRescue, recover.Options{Selection: recover.Selection{Project: "shop"}, Parallel: 2}},
		{"--project shop --offline --host this-host", recover.CommandRescue,
			recover.Options{Selection: recover.Selection{Project: "shop", Host: "this-host"}, Parallel: 2, Offline: true}},
		{"--project shop --project-domain acme --host cmp-8 --accept-loss nvram,vtpm --accept-loss vpmem --accept-loss saved-memory " +
			"--holder 7 --holder 9 --map /i/u/disk=10:13", recover.CommandRescue,
			recover.Options{Selection: recover.Selection{Project: "shop", ProjectDomain: "acme", Host: "cmp-8"}, Parallel: 2,
				AcceptLoss: []string{"nvram", "vtpm", "vpmem", "saved-memory"},
				Hints:      recover.Hints{Holders: []int{7, 9}, Map: []recover.Mapping{{Path: "/i/u/disk", PID: 10, FD: 13}}}}},
		{"--all --mode live --verify running --max-pause 10s --bandwidth 100MiB --timeout 2h", recover.CommandRescue,
			recover.Options{Selection: recover.Selection{All: true}, Parallel: 2, Mode: recover.ModeLive, Verify: recover.VerifyRunning,
				Live: recover.LiveOptions{MaxPause: 10 * time.Second, BytesPerSecond: 100 << 20, Timeout: 2 * time.Hour}}},
		{"--all --mode auto --verify structure --no-reboot", recover.CommandRescue,
			recover.Options{Selection: recover.Selection{All: true}, Parallel: 2, Mode: recover.ModeAuto, Verify: recover.VerifyStructure,
				NoReboot: true, Live: recover.LiveOptions{MaxPause: 30 * time.Second}}},
		{"backup --all --to /b/ --keep-paused", recover.CommandBackup,
			recover.Options{Selection: recover.Selection{All: true}, Parallel: 2, BackupDir: "/b", KeepPaused: true, Offline: true}},
		{"restore --from /b --offline --accept-older", recover.CommandRestore,
			recover.Options{Selection: recover.Selection{All: true}, Parallel: 2, BackupDir: "/b", AcceptOlder: true, Offline: true}},
		{"restore --from /b --instance a", recover.CommandRestore,
			recover.Options{Selection: recover.Selection{Instances: []string{"a"}}, Parallel: 2, BackupDir: "/b"}},
		{"reboot --all", recover.CommandReboot,
			recover.Options{Selection: recover.Selection{All: true}, Parallel: 2, Reboot: recover.RebootOptions{MaxAge: 10 * time.Minute}}},
		{"reboot --project shop --project-domain acme --host h --state active,ERROR --state shutoff --max-parallel 5 --batch-size 10 " +
			"--batch-wait 90s --timeout 8m --accept-loss nvram", recover.CommandReboot,
			recover.Options{Selection: recover.Selection{Project: "shop", ProjectDomain: "acme", Host: "h"}, Parallel: 5,
				AcceptLoss: []string{"nvram"},
				Reboot: recover.RebootOptions{States: []string{"ACTIVE", "ERROR", "SHUTOFF"}, BatchSize: 10, BatchWait: 90 * time.Second,
					Timeout: 8 * time.Minute, MaxAge: 10 * time.Minute}}},
	} {
		f := &fake{}
		if o := do(t, f, call{args: c.args}); o.code != exitOK {
			t.Errorf("%s: exit %d, %q", c.args, o.code, o.err)
		}
		if c.command == recover.CommandRescue && c.want.Mode == "" { // the defaults
			c.want.Mode, c.want.Live.MaxPause = recover.ModeReboot, 30*time.Second
		}
		if f.command != c.command || fmt.Sprintf("%+v", f.options) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%s: %s %+v, want %s %+v", c.args, f.command, f.options, c.command, c.want)
		}
	}
}

func TestTheExitCodeOfARunDependsOnItsResults(t *testing.T) {
	with := func(o recover.Outcome) recover.RunReport {
		return recover.RunReport{Instances: []recover.InstanceReport{{Domain: "d", Outcome: o, Error: "x"}}}
	}
	interrupted := with(recover.OutcomeSkipped)
	interrupted.Interrupted = true
	for _, c := range []struct {
		name   string
		result recover.RunReport
		err    error
		want   int
	}{
		{"rescued", with(recover.OutcomeRescued), nil, exitOK},
		{"intact", with(recover.OutcomeIntact), nil, exitOK},
		{"nothing", recover.RunReport{}, nil, exitOK},
		{"skipped", with(recover.OutcomeSkipped), nil, exitUnrescued},
		{"failed", with(recover.OutcomeFailed), nil, exitUnrescued},
		{"interrupted", interrupted, nil, exitInterrupted},
		{"interrupted with an error", interrupted, errors.New("the journal"), exitInterrupted},
		{"error", with(recover.OutcomeRescued), errors.New("the journal"), exitUnrescued},
		{"unusable", recover.RunReport{}, recover.ErrUnavailable, exitUnusable},
	} {
		o := do(t, &fake{result: c.result, execErr: c.err}, call{args: "--all --offline --yes"})
		if o.code != c.want {
			t.Errorf("%s: exit %d, want %d", c.name, o.code, c.want)
		}
		if c.err != nil && !strings.Contains(o.err, c.err.Error()) {
			t.Errorf("%s: stderr %q does not say %q", c.name, o.err, c.err)
		}
	}
}

func TestASignalStopsARunAndEverySignalIsAcknowledged(t *testing.T) {
	signals := make(chan os.Signal)
	f := &fake{wait: true}
	f.executed = func() {
		signals <- os.Interrupt
		signals <- os.Interrupt
	}
	o := do(t, f, call{args: "--all --offline --yes", signals: signals})
	if o.code != exitInterrupted || !strings.Contains(o.err, "stopping: SIGINT") {
		t.Errorf("exit %d, stderr %q", o.code, o.err)
	}
	if !strings.Contains(o.err, "still finishing work that can't be interrupted (signal 2: SIGINT)") {
		t.Errorf("the second signal: %q", o.err)
	}
}

func TestASignalAtTheQuestionIsANo(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	never, hold := io.Pipe()
	defer hold.Close()
	f := &fake{plan: disruptive()}
	o := do(t, f, call{args: "--all --offline", answers: never, signals: signals, interactive: true})
	if o.code != exitInterrupted || strings.Join(f.calls, " ") != "prepare abandon close disconnect" {
		t.Errorf("exit %d, calls %v, stderr %q", o.code, f.calls, o.err)
	}
}

func TestResultsThatCannotBeWrittenAreAnError(t *testing.T) {
	f := &fake{}
	o := do(t, f, call{args: "scan", stdout: failing{}})
	if o.code != exitUnusable || !strings.Contains(o.err, "can't write the results") {
		t.Errorf("exit %d, %q", o.code, o.err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestScan(t *testing.T) {
	f := &fake{report: recover.Report{Host: "h", Instances: []recover.Instance{{UUID: "u", Domain: "d", Verdict: recover.VerdictRecoverable}}}}
	o := do(t, f, call{args: "scan --libvirt-uri qemu:///x?a=b"})
	if o.code != exitOK || !o.withLibvirt || !strings.Contains(o.out, "os-rescue --libvirt-uri 'qemu:///x?a=b' --all --dry-run\n") {
		t.Errorf("exit %d, %q", o.code, o.out)
	}
	f.report.Instances[0].Verdict = recover.VerdictUnknown
	if o := do(t, f, call{args: "scan"}); o.code != exitUnrescued {
		t.Errorf("with an instance that could not be looked at: exit %d", o.code)
	}
	f.err = recover.ErrUnavailable
	if o := do(t, f, call{args: "scan"}); o.code != exitUnusable || o.out != "" {
		t.Errorf("without libvirt: exit %d, %q", o.code, o.out)
	}
}

func TestResumeFinishesEveryInterruptedRunTheOldestFirst(t *testing.T) {
	f := &fake{runs: []recover.RunStatus{
		{Run: "r4", State: recover.RunInterrupted}, {Run: "r3", State: recover.RunRunning},
		{Run: "r2", State: recover.RunFinished}, {Run: "r1", State: recover.RunInterrupted},
	}}
	o := do(t, f, call{args: "resume"})
	const want = "disconnect resume r1 execute close resume r4 execute close disconnect"
	if o.code != exitOK || strings.Join(f.calls, " ") != want {
		t.Errorf("exit %d, calls %v", o.code, f.calls)
	}
	f = &fake{runs: f.runs, result: recover.RunReport{Instances: []recover.InstanceReport{{Outcome: recover.OutcomeFailed}}}}
	if o := do(t, f, call{args: "resume"}); o.code != exitUnrescued || !strings.Contains(strings.Join(f.calls, " "), "resume r4") {
		t.Errorf("after one that failed: exit %d, calls %v", o.code, f.calls)
	}
	f = &fake{}
	if o := do(t, f, call{args: "resume"}); o.code != exitOK || !strings.Contains(o.out, "nothing to do") {
		t.Errorf("nothing to resume: exit %d, %q", o.code, o.out)
	}
	f = &fake{err: recover.ErrNoRun}
	if o := do(t, f, call{args: "resume nope"}); o.code != exitUsage {
		t.Errorf("a run that is not there: exit %d", o.code)
	}
	f = &fake{plan: disruptive()}
	if o := do(t, f, call{args: "resume r1"}); o.code != exitUsage || strings.Contains(strings.Join(f.calls, " "), "execute") {
		t.Errorf("without consent: exit %d, calls %v", o.code, f.calls)
	}
}

func TestStatusAndReportWorkWithoutLibvirt(t *testing.T) {
	for args, want := range map[string]string{
		"status":            "No runs.",
		"status r1":         "r1",
		"report r1":         "Run r1.",
		"status -o json":    `"runs": []`,
		"status r1 -o json": `"run": "r1"`,
		"report r1 -o json": `"instances": []`,
	} {
		o := do(t, &fake{}, call{args: args})
		if o.code != exitOK || o.withLibvirt || !strings.Contains(o.out, want) {
			t.Errorf("%s: exit %d, libvirt %v, %q", args, o.code, o.withLibvirt, o.out)
		}
	}
}

func TestAnErrorIsOneLineFitForATerminal(t *testing.T) {
	o := do(t, &fake{err: fmt.Errorf("%w: evil\x1b[2J\n\tsecond line", recover.ErrRefused)}, call{args: "scan"})
	if o.err != "os-rescue: refused: evil?[2J; second line\n" || o.code != exitUnrescued {
		t.Errorf("exit %d, %q", o.code, o.err)
	}
}

func TestAScanAsJSONNeedsNoJournals(t *testing.T) {
	for args, code := range map[string]int{"scan": exitUnusable, "scan --output json": exitOK} {
		f := &fake{runsErr: fmt.Errorf("%w: the state directory", recover.ErrUnusable)}
		if o := do(t, f, call{args: args}); o.code != code {
			t.Errorf("%s: exit code %d, not %d: %s", args, o.code, code, o.err)
		}
	}
}
