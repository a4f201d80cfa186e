package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
)

// scanOf returns the output of "os-rescue scan --output json" on a host.
func scanOf(t testing.TB, host string) string {
	t.Helper()
	report := recover.Report{Host: host, Taken: time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC), Instances: []recover.Instance{
		{UUID: "11111111-0000-4000-8000-000000000001", Domain: "instance-00000001", PID: 7,
			State: recover.StateRunning, Verdict: recover.VerdictIntact,
			Files: []recover.File{{
				Path: "/i/disk", Role: recover.RoleDisk, State: recover.FilePresent, Holders: []recover.Holder{{PID: 7, FD: 13}},
			}}},
	}}
	var b bytes.Buffer
	if err := render.JSON(&b, report); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scan.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScanReportsOfOtherHostsTakeThePlaceOfLibvirt(t *testing.T) {
	f := &fake{}
	two, one := file(t, scanOf(t, "cmp-8")+scanOf(t, "cmp-9")), file(t, scanOf(t, "cmp-7"))
	o := do(t, f, call{args: "reboot --all --scan-report " + two + " --scan-report " + one + " --scan-max-age 3m"})
	if o.code != exitOK || o.withLibvirt {
		t.Fatalf("exit %d, libvirt %v, %q", o.code, o.withLibvirt, o.err)
	}
	var hosts []string
	for _, r := range f.options.Reboot.Reports {
		hosts = append(hosts, r.Host)
	}
	if got := strings.Join(hosts, " "); got != "cmp-8 cmp-9 cmp-7" || !f.options.Reboot.Remote || f.options.Reboot.MaxAge != 3*time.Minute {
		t.Errorf("got hosts %s, %+v", got, f.options.Reboot)
	}
	if i := f.options.Reboot.Reports[0].Instances[0]; i.Verdict != recover.VerdictIntact || i.Files[0].Holders[0].FD != 13 {
		t.Errorf("got %+v", i)
	}
	if o := do(t, &fake{}, call{args: "reboot --all"}); !o.withLibvirt {
		t.Error("without a report libvirt was not asked for")
	}
}

func TestAScanReportOnStandardInputAsksNobody(t *testing.T) {
	plan := recover.Plan{Command: recover.CommandReboot, Instances: []recover.InstancePlan{{Domain: "d", Action: recover.ActionHardReboot}}}
	for _, c := range []struct {
		args  string
		code  int
		calls string
	}{
		{"--yes", exitOK, "prepare execute close disconnect"},
		{"--dry-run", exitOK, "dry-run disconnect"},
		{"", exitUsage, ""},
	} {
		f := &fake{plan: plan}
		o := do(t, f, call{args: "reboot --all --scan-report - " + c.args, stdin: scanOf(t, "cmp-8"), interactive: true})
		if o.code != c.code || strings.Join(f.calls, " ") != c.calls {
			t.Errorf("%q: exit %d, calls %v, %q", c.args, o.code, f.calls, o.err)
		}
	}
}

func TestARebootNeedsConsentAndTheRefusalSaysReboot(t *testing.T) {
	f := &fake{plan: recover.Plan{Command: recover.CommandReboot, Instances: []recover.InstancePlan{
		{Domain: "instance-00000001", Action: recover.ActionHardReboot},
	}}}
	o := do(t, f, call{args: "reboot --all"})
	if o.code != exitUsage || !strings.Contains(o.err, "it reboots instance-00000001: add --yes") {
		t.Errorf("exit %d, %q", o.code, o.err)
	}
	if got := strings.Join(f.calls, " "); got != "prepare abandon close disconnect" {
		t.Errorf("calls %s", got)
	}
}

func TestAScanReportWithAnyMistakeIsRefused(t *testing.T) {
	good := scanOf(t, "cmp-8")
	replace := func(a, b string) string {
		changed := strings.Replace(good, a, b, 1)
		if changed == good {
			t.Fatalf("%q is not in the report", a)
		}
		return changed
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "empty"},
		"not JSON":        {"cmp-8  4 instances", "not what os-rescue scan"},
		"cut off":         {good[:len(good)/2], "not what os-rescue scan"},
		"something after": {good + "x", "not what os-rescue scan"},
		"another field":   {replace(`"host"`, `"run": "r1", "host"`), "unknown field"},
		"another type":    {replace(`"pid": 7`, `"pid": "7"`), "not what os-rescue scan"},
		"a list":          {"[" + good + "]", "not what os-rescue scan"},
		"no host":         {replace(`"host": "cmp-8"`, `"host": ""`), "host, taken or instances"},
		"no time":         {replace(`"taken": "2026-11-22T18:00:00Z",`, ""), "host, taken or instances"},
		"no instances":    {`{"host": "h", "taken": "2026-11-22T18:00:00Z"}`, "host, taken or instances"},
		"an unknown word": {replace(`"verdict": "intact"`, `"verdict": "fine"`), `"fine"`},
		"no UUID":         {replace(`"uuid": "11111111-0000-4000-8000-000000000001"`, `"uuid": ""`), "no UUID"},
		"a host twice":    {good + good, "two scans of host cmp-8"},
		"a run's report":  {`{"run": "r1", "host": "h", "instances": []}`, "unknown field"},
	} {
		f := &fake{}
		o := do(t, f, call{args: "reboot --all --scan-report " + file(t, c.text)})
		if o.code != exitUsage || !strings.Contains(o.err, c.want) || !strings.Contains(o.err, "scan.json") || len(f.calls) > 0 {
			t.Errorf("%s: exit %d, %q, calls %v", name, o.code, o.err, f.calls)
		}
	}
}

func TestResumingARebootByScanReportsNeedsNoLibvirt(t *testing.T) {
	remote := recover.Options{Reboot: recover.RebootOptions{Remote: true}}
	runs := func(runs ...recover.RunStatus) *fake { return &fake{runs: runs} }
	for _, c := range []struct {
		name    string
		f       *fake
		args    string
		libvirt bool
	}{
		{"named, of other hosts", &fake{began: remote}, "resume r1", false},
		{"named, of this host", &fake{}, "resume r1", true},
		{"all, of other hosts", runs(
			recover.RunStatus{Run: "r1", State: recover.RunInterrupted, Options: remote},
			recover.RunStatus{Run: "r0", State: recover.RunFinished},
		), "resume", false},
		{"one of each", runs(
			recover.RunStatus{Run: "r1", State: recover.RunInterrupted, Options: remote},
			recover.RunStatus{Run: "r0", State: recover.RunInterrupted},
		), "resume", true},
		{"none", &fake{}, "resume", false},
	} {
		o := do(t, c.f, call{args: c.args})
		if o.code != exitOK || o.withLibvirt != c.libvirt {
			t.Errorf("%s: exit %d, with libvirt %v, %q", c.name, o.code, o.withLibvirt, o.err)
		}
	}
	if o := do(t, &fake{err: errors.New("the journal is damaged")}, call{args: "resume r1"}); o.code != exitUnrescued {
		t.Errorf("a run that can't be read: exit %d", o.code)
	}
}
