package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
)

// finding is an engine's check that finds one thing.
func finding(level check.Level) *fake {
	return &fake{check: func(context.Context, check.Options, scanFunc) (check.Report, error) {
		r := check.Report{Host: "h", Taken: time.Now(), Level: check.OK}
		if level != check.OK {
			r.Add(check.Finding{Level: level, Text: "something"})
		}
		return r, nil
	}}
}

func TestTheExitCodeOfACheckIsItsLevel(t *testing.T) {
	for level, code := range map[check.Level]int{
		check.OK: 0, check.Warning: 1, check.Critical: 2, check.Unknown: 3,
	} {
		for _, output := range []string{"text", "json"} {
			o := do(t, finding(level), call{args: "check --output " + output})
			if o.code != code || o.err != "" || o.withLibvirt {
				t.Errorf("%s: exit %d, stderr %q, libvirt %v", level, o.code, o.err, o.withLibvirt)
			}
			if want := "OS-RESCUE " + string(level) + ": "; output == "text" && !strings.HasPrefix(o.out, want) {
				t.Errorf("%s: %q", level, o.out)
			}
			var r check.Report
			if output == "json" && (json.Unmarshal([]byte(o.out), &r) != nil || r.Level != level) {
				t.Errorf("%s: %s", level, o.out)
			}
		}
	}
}

func TestEveryErrorOfACheckIsUnknown(t *testing.T) {
	config := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(config, []byte("no_such_key: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"check --nonsense":                          "unknown flag: --nonsense",
		"--nonsense check":                          "unknown flag: --nonsense",
		"-o json check --nonsense":                  "unknown flag: --nonsense",
		"--output yaml check":                       "must be text or json",
		"check extra":                               "unknown command",
		"check --warning":                           "needs an argument",
		"check --warning 0":                         "must be 1 or more",
		"check --critical -1":                       "must be 1 or more",
		"check --warning 2":                         "--warning 2 is above --critical 1",
		"check --critical many":                     "invalid argument",
		"check --warning-held lots":                 "a number of bytes",
		"check --warning-held 9EiB":                 "a number of bytes",
		"check --warning-held 2G --critical-held 1": "--warning-held is more than --critical-held",
		"check --timeout 0s":                        "must be more than 0",
		"check --timeout 10":                        "invalid argument",
		"check --max-age -1s":                       "must be more than 0",
		"check --config /nonexistent":               "/nonexistent",
		"check --config " + config:                  "no_such_key",
		"check --log-level loud":                    "--log-level",
	} {
		f := &fake{}
		o := do(t, f, call{args: args})
		text := strings.HasPrefix(o.out, "OS-RESCUE UNKNOWN: ")
		if o.code != 3 || !strings.Contains(o.out, want) || len(f.calls) > 0 || text == strings.Contains(args, "json check") {
			t.Errorf("%q: exit %d, stdout %q, calls %v", args, o.code, o.out, f.calls)
		}
	}
	if o := do(t, &fake{}, call{args: "check", notRoot: true}); o.code != 3 || !strings.Contains(o.out, "needs root") {
		t.Errorf("not root: exit %d, %q", o.code, o.out)
	}
	if o := do(t, &fake{}, call{args: "check --help"}); o.code != 3 || !strings.Contains(o.out, "--require-guard") {
		t.Errorf("--help: exit %d", o.code)
	}
	o := do(t, finding(check.OK), call{args: "check", stdout: failing{}})
	if o.code != 3 || !strings.Contains(o.err, "can't write the results") {
		t.Errorf("nobody reads it: exit %d, %q", o.code, o.err)
	}
	if o := do(t, finding(check.OK), call{args: "check", connectErr: recover.ErrUnusable}); o.code != 3 {
		t.Errorf("no engine: exit %d", o.code)
	}
}

func TestOnlyTheCheckHasTheExitCodesOfAPlugin(t *testing.T) {
	for args, code := range map[string]int{
		"--project check --bogus": 2, "scan --nonsense": 2, "chekc": 2, "help check": 0, "--nonsense scan": 2,
	} {
		if o := do(t, &fake{}, call{args: args}); o.code != code {
			t.Errorf("%s: exit %d, %q", args, o.code, o.out)
		}
	}
}

func TestThresholdsOfACheckReachTheEngine(t *testing.T) {
	var got check.Options
	f := &fake{check: func(_ context.Context, o check.Options, _ scanFunc) (check.Report, error) {
		got = o
		return check.Report{Level: check.OK}, nil
	}}
	for args, want := range map[string]check.Options{
		"check": {Warning: 1, Critical: 1, MaxAge: 5 * time.Minute},
		"check --warning 2 --critical 5 --warning-held 50GiB --critical-held 1T --max-age 1m --require-guard": {Warning: 2, Critical: 5,
			WarningHeld: 50 << 30, CriticalHeld: 1e12, MaxAge: time.Minute, RequireGuard: true},
	} {
		if o := do(t, f, call{args: args}); o.code != 0 || got != want {
			t.Errorf("%s: exit %d, %+v", args, o.code, got)
		}
	}
}

func TestACheckConnectsToLibvirtOnlyToScan(t *testing.T) {
	f := &fake{report: recover.Report{Host: "scanned"}}
	f.check = func(ctx context.Context, _ check.Options, scan scanFunc) (check.Report, error) {
		r, err := scan(ctx)
		return check.Report{Level: check.OK, Host: r.Host}, err
	}
	o := do(t, f, call{args: "check -o json"})
	calls := strings.Join(f.calls, " ")
	if o.code != 0 || !o.withLibvirt || !strings.Contains(o.out, `"host": "scanned"`) || calls != "check scan disconnect disconnect" {
		t.Errorf("exit %d, %s, %s", o.code, o.out, calls)
	}
	f.err = recover.ErrUnavailable
	if o := do(t, f, call{args: "check"}); o.code != 3 || !strings.Contains(o.out, recover.ErrUnavailable.Error()) {
		t.Errorf("libvirt is down: exit %d, %s", o.code, o.out)
	}
}

func TestACheckEndsWhenItsTimeIsOverAndWhenItIsStopped(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	f := &fake{check: func(context.Context, check.Options, scanFunc) (check.Report, error) {
		<-hang
		return check.Report{}, nil
	}}
	o := do(t, f, call{args: "check --timeout 20ms"})
	if o.code != 3 || !strings.Contains(o.out, "OS-RESCUE UNKNOWN: the check did not finish within 20ms") {
		t.Errorf("exit %d, %q", o.code, o.out)
	}
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	if o := do(t, f, call{args: "check", signals: signals}); o.code != 3 || !strings.Contains(o.out, "stopped by SIGTERM") {
		t.Errorf("exit %d, %q", o.code, o.out)
	}
	// What the engine has found out until then is said all the same.
	f = &fake{check: func(ctx context.Context, _ check.Options, _ scanFunc) (check.Report, error) {
		<-ctx.Done()
		r := check.Report{Level: check.OK}
		r.Add(check.Finding{Level: check.Critical, Text: "half done"})
		return r, nil
	}}
	if o := do(t, f, call{args: "check --timeout 20ms"}); o.code != 2 || !strings.Contains(o.out, "half done") {
		t.Errorf("exit %d, %q", o.code, o.out)
	}
}

func TestACheckWritesItsMetricsAtEveryLevel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "os-rescue.prom")
	for args, want := range map[string]string{
		"check":             "os_rescue_check_level 2\n",
		"check --nonsense":  "os_rescue_check_level 3\n",
		"check --warning 9": "os_rescue_check_level 3\n",
	} {
		f := finding(check.Critical)
		args = strings.Replace(args, "check", "check --prometheus "+path, 1)
		o := do(t, f, call{args: args})
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), want) || !strings.HasPrefix(o.out, "OS-RESCUE ") {
			t.Errorf("%s: %v\n%s\n%s", args, err, text, o.out)
		}
	}
	if o := do(t, &fake{}, call{args: "check --prometheus " + path, notRoot: true}); o.code != 3 {
		t.Errorf("not root: exit %d", o.code)
	}
	for level, code := range map[check.Level]int{check.OK: 3, check.Warning: 3, check.Critical: 2} {
		o := do(t, finding(level), call{args: "check --prometheus /nonexistent/x.prom"})
		if o.code != code || !strings.Contains(o.out, "the metrics could not be written") {
			t.Errorf("%s, and a file that can't be written: exit %d, %s", level, o.code, o.out)
		}
	}
}

func FuzzByteSize(f *testing.F) {
	for _, s := range []string{"0", "50GiB", "1e3", "-1", "9EiB", "1 T", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := byteSize(-7)
		if err := b.Set(s); (err == nil) != (b >= 0) || err != nil && b != -7 {
			t.Errorf("%q: %d, %v", s, b, err)
		}
		if b >= 0 {
			again := byteSize(0)
			if err := again.Set(b.String()); err != nil || again != b {
				t.Errorf("%q is %d, which is %d, %v", s, b, again, errors.Unwrap(err))
			}
		}
	})
}
