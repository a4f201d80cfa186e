package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

func spread() []recover.Elsewhere {
	return []recover.Elsewhere{
		{UUID: "e4", Name: "down-1", Unknown: true},
		{UUID: "e3", Name: "web-3", Host: "cmp-8", Status: "ACTIVE"},
		{UUID: "e5", Name: "cold", Status: "SHELVED_OFFLOADED"},
		{UUID: "e1", Name: "db-1", Host: "cmp-9", Status: "SHUTOFF"},
		{UUID: "e2", Name: "app\x1b[2J", Host: "cmp-8", Status: "ACTIVE"},
	}
}

func plannedWithNova() recover.Plan {
	active := &recover.Server{Status: "ACTIVE", VMState: recover.VMActive}
	return recover.Plan{Command: recover.CommandRescue, Mode: "reboot", Host: "cmp-7",
		Options:   recover.Options{Selection: recover.Selection{Project: "shop", ProjectDomain: "acme corp"}},
		Elsewhere: spread(),
		Warnings:  []string{"masakari-hostmonitor runs here: stop it first"},
		Instances: []recover.InstancePlan{
			{UUID: "u1", Domain: "instance-00000001", Name: "web-1", Action: recover.ActionReboot, Found: "running", Server: active,
				Steps: []string{"lock it in Nova", "destroy the domain", "hard reboot it through Nova", "unlock it"}},
			{UUID: "u2", Domain: "instance-00000002", Name: "web-2", Action: recover.ActionPublish, Found: "running",
				Server: &recover.Server{Status: "ERROR", VMState: recover.VMError, Locked: true, Fault: "No disk at /i/2/disk\n"}},
			{UUID: "u3", Domain: "instance-00000003", Action: recover.ActionRefuse, Refusal: "its resize waits for a confirmation", Server: active},
			{UUID: "u4", Domain: "pet", Action: recover.ActionReboot, Found: "running"},
		}}
}

func TestAPlanWithNovaHasItsStatesTheOtherHostsAndTheWarnings(t *testing.T) {
	golden(t, written(t, func(b *bytes.Buffer) error { return WritePlan(b, plain(), plannedWithNova()) }), `
Plan of a rescue on cmp-7, mode reboot

instance-00000001  web-1  u1
  pause, copy, verify, destroy, put back, hard reboot (found running, ACTIVE in Nova); 0 B to copy
    1. lock it in Nova
    2. destroy the domain
    3. hard reboot it through Nova
    4. unlock it

instance-00000002  web-2  u2
  put back, hard reboot (found running, ERROR in Nova, locked already); 0 B to copy
  Nova's last error: No disk at /i/2/disk?

instance-00000003  u3
  left alone: its resize waits for a confirmation

pet  u4
  pause, copy, verify, destroy, put back, start (found running); 0 B to copy

On other hosts, and left alone: 5 instances
  HOST       NAME     STATUS             INSTANCE
  cmp-8      app?[2J  ACTIVE             e2
  cmp-8      web-3    ACTIVE             e3
  cmp-9      db-1     SHUTOFF            e1
  none       cold     SHELVED_OFFLOADED  e5
  not known  down-1   -                  e4
On cmp-8: os-rescue --project shop --project-domain 'acme corp'
On cmp-9: os-rescue --project shop --project-domain 'acme corp'
Not known: the cell of the instance does not answer, so the instance may be on any host, even on this one. `+
		`Run this again when the cell is back.

Warning: masakari-hostmonitor runs here: stop it first

In total: 1 instance paused, destroyed and hard rebooted, 1 instance paused, destroyed and started, `+
		"1 instance put back and hard rebooted, 1 instance left alone.\n")
}

func TestAPlanSaysHowAnInstanceComesBack(t *testing.T) {
	nova := &recover.Server{Status: "ACTIVE"}
	for _, c := range []struct {
		name    string
		options recover.Options
		plan    recover.InstancePlan
		action  string
		sum     string
	}{
		{"through Nova", recover.Options{}, recover.InstancePlan{Action: recover.ActionReboot, Found: "running", Server: nova},
			"pause, copy, verify, destroy, put back, hard reboot", "paused, destroyed and hard rebooted"},
		{"offline", recover.Options{Offline: true}, recover.InstancePlan{Action: recover.ActionReboot, Found: "running"},
			"pause, copy, verify, destroy, put back, start", "paused, destroyed and started"},
		{"not at all", recover.Options{NoReboot: true}, recover.InstancePlan{Action: recover.ActionReboot, Found: "running", Server: nova},
			"pause, copy, verify, destroy, put back; it stays off", "paused and destroyed"},
		{"off", recover.Options{}, recover.InstancePlan{Action: recover.ActionPublish, Found: "shutoff", Server: nova},
			"put back; it stays off", "put back"},
		{"off, to be started", recover.Options{Offline: true}, recover.InstancePlan{Action: recover.ActionPublish, Found: "running"},
			"put back, start", "put back and started"},
		{"files alone", recover.Options{}, recover.InstancePlan{Action: recover.ActionPutBack, Server: nova},
			"put back while it runs, with no pause", "put back with no pause"},
		{"reboot alone", recover.Options{}, recover.InstancePlan{Action: recover.ActionHardReboot, Server: nova},
			"hard reboot through Nova", "hard rebooted"},
	} {
		plan := recover.Plan{Options: c.options}
		if got := actionText(plan, c.plan); got != c.action {
			t.Errorf("%s: the action is %q, want %q", c.name, got, c.action)
		}
		if got := sumText(plan, c.plan); got != c.sum {
			t.Errorf("%s: in total %q, want %q", c.name, got, c.sum)
		}
	}
}

func TestTheStateInNovaIsInFewWords(t *testing.T) {
	for want, s := range map[string]recover.Server{
		"ACTIVE in Nova":                           {Status: "ACTIVE"},
		"ACTIVE in Nova, task powering-off":        {Status: "ACTIVE", TaskState: "powering-off"},
		"SHUTOFF in Nova, locked already":          {Status: "SHUTOFF", Locked: true},
		"unknown in Nova":                          {Status: "UNKNOWN", Unknown: true},
		"- in Nova":                                {},
		"HARD_REBOOT in Nova, task reboot_started": {Status: "HARD_REBOOT", TaskState: "reboot_started"},
	} {
		if got := novaState(s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

func TestTheCommandForAnotherHostSelectsTheSameInstances(t *testing.T) {
	demo := recover.Selection{Project: "demo"}
	for _, c := range []struct {
		command recover.Command
		options recover.Options
		want    string
	}{
		{recover.CommandRescue, recover.Options{Selection: demo}, "os-rescue --project demo"},
		{recover.CommandRescue, recover.Options{Selection: demo, Mode: recover.ModeReboot}, "os-rescue --project demo"},
		{recover.CommandRescue, recover.Options{Selection: demo, Mode: recover.ModeLive}, "os-rescue --project demo --mode live"},
		{recover.CommandRescue, recover.Options{Selection: demo, Mode: recover.ModeAuto}, "os-rescue --project demo --mode auto"},
		{recover.CommandRescue, recover.Options{Selection: recover.Selection{Project: "it's", ProjectDomain: "d"}},
			`os-rescue --project 'it'\''s' --project-domain d`},
		{recover.CommandRescue, everything(), "os-rescue --all"},
		{recover.CommandRescue, recover.Options{Selection: recover.Selection{Instances: []string{"a", "b", "c"}}},
			"os-rescue --instance b --instance c"},
		{recover.CommandReboot, recover.Options{Selection: recover.Selection{Project: "demo", Host: "x"}}, "os-rescue reboot --project demo"},
	} {
		if got := commandFor(c.command, c.options, []string{"b", "c"}); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestAThousandInstancesElsewhereAreNotAThousandLines(t *testing.T) {
	var all []recover.Elsewhere
	for n := range 1000 {
		all = append(all, recover.Elsewhere{UUID: fmt.Sprintf("e%03d", n), Host: "cmp-8"})
	}
	got := written(t, func(b *bytes.Buffer) error {
		return WritePlan(b, plain(), recover.Plan{
			Command: recover.CommandRescue, Host: "h", Elsewhere: all, Options: recover.Options{Selection: recover.Selection{Project: "p"}},
		})
	})
	if n := strings.Count(got, "\n"); n > 30 || !strings.Contains(got, "and 980 more") || !strings.Contains(got, "1000 instances") {
		t.Errorf("%d lines: %s", n, got)
	}
	if !strings.HasSuffix(got, "All selected instances are on other hosts: nothing to do here.\n") {
		t.Errorf("the end is %q", got[len(got)-80:])
	}
}

func TestTheResultSaysWhatToRunOnOtherHosts(t *testing.T) {
	r := ran()
	r.Elsewhere, r.Warnings = spread()[1:2], []string{"nova-compute is down here"}
	got := written(t, func(b *bytes.Buffer) error {
		return WriteRun(b, plain(), r, recover.Options{Selection: recover.Selection{Project: "shop"}})
	})
	if want := `Run it again later

On other hosts, and left alone: 1 instance
  HOST   NAME   STATUS  INSTANCE
  cmp-8  web-3  ACTIVE  e3
On cmp-8: os-rescue --project shop

Warning: nova-compute is down here

1 rescued, 1 intact, 1 skipped`; !strings.Contains(got, want) {
		t.Errorf("%s\ndoes not have\n%s", got, want)
	}
	empty := recover.RunReport{Command: "rescue", Elsewhere: r.Elsewhere}
	got = written(t, func(b *bytes.Buffer) error { return WriteRun(b, plain(), empty, everything()) })
	if !strings.HasSuffix(got, "\n\nAll selected instances are on other hosts: nothing to do here.\n") {
		t.Errorf("with nothing here: %q", got)
	}
}

func TestAPlanOfRebootsAndItsResult(t *testing.T) {
	plan := recover.Plan{Command: recover.CommandReboot, Mode: "reboot", Host: "ctl",
		Options: recover.Options{Reboot: recover.RebootOptions{Remote: true}},
		Instances: []recover.InstancePlan{
			{UUID: "u1", Domain: "instance-00000001", Name: "web", Action: recover.ActionHardReboot, Found: "running",
				Server: &recover.Server{Status: "ACTIVE"}, Steps: []string{"hard reboot it through Nova"}},
			{UUID: "u2", Domain: "instance-00000002", Action: recover.ActionRefuse, Refusal: "it has lost files"},
		}}
	golden(t, written(t, func(b *bytes.Buffer) error { return WritePlan(b, plain(), plan) }), `
Plan of a reboot from the scans of other hosts

instance-00000001  web  u1
  hard reboot through Nova (found running, ACTIVE in Nova)
    1. hard reboot it through Nova

instance-00000002  u2
  left alone: it has lost files

In total: 1 instance hard rebooted, 1 instance left alone.
`)
	start := time.Date(2026, 11, 22, 18, 4, 0, 0, time.UTC)
	report := recover.RunReport{Run: "r9", Command: "reboot", Host: "ctl", Started: start, Finished: start.Add(8 * time.Second),
		Instances: []recover.InstanceReport{
			{UUID: "u1", Domain: "instance-00000001", Name: "web", Outcome: recover.OutcomeRescued,
				Steps: []recover.StepReport{{Name: "lock", Seconds: 1}, {Name: "reboot", Seconds: 6.2}}},
			{UUID: "u2", Domain: "instance-00000002", Outcome: recover.OutcomeSkipped, Error: "it has lost files"},
		}}
	golden(t, written(t, func(b *bytes.Buffer) error { return WriteRun(b, plain(), report, everything()) }), `
INSTANCE           NAME  OUTCOME    TOOK  NOTE
instance-00000001  web   rebooted  6.2 s
instance-00000002  -     skipped       -  see below

instance-00000002  u2
  skipped: it has lost files

1 rebooted, 1 skipped in 8.0 s. Run r9.
`)
}

func TestTheTitleOfAPlanSaysWhetherNovaTakesPart(t *testing.T) {
	offline := recover.Options{Offline: true}
	for want, plan := range map[string]recover.Plan{
		"Plan of a rescue on h, mode reboot":                {Command: recover.CommandRescue, Mode: "reboot", Host: "h"},
		"Plan of a restore on h, mode reboot, without Nova": {Command: recover.CommandRestore, Mode: "reboot", Host: "h", Options: offline},
		"Plan of a backup on h":                             {Command: recover.CommandBackup, Mode: "reboot", Host: "h", Options: offline},
		"Plan of a reboot on h":                             {Command: recover.CommandReboot, Mode: "reboot", Host: "h"},
	} {
		if got := planTitle(plan); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
