package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

func TestModeLiveCanBeConfiguredAndAppliesOnlyToARescue(t *testing.T) {
	env := map[string]string{"OS_RESCUE_MODE": "live", "OS_RESCUE_VERIFY": "structure", "OS_RESCUE_LIVE_MAX_PAUSE": "7s",
		"OS_RESCUE_LIVE_BANDWIDTH": "1GiB", "OS_RESCUE_LIVE_TIMEOUT": "36h"}
	configured := recover.LiveOptions{MaxPause: 7 * time.Second, BytesPerSecond: 1 << 30, Timeout: 36 * time.Hour}
	for _, c := range []struct {
		args   string
		mode   recover.Mode
		verify recover.Verify
		live   recover.LiveOptions
	}{
		{"--all", recover.ModeLive, recover.VerifyStructure, configured},
		{"--all --mode auto", recover.ModeAuto, recover.VerifyStructure, configured},
		{"--all --mode reboot --verify full", recover.ModeReboot, recover.VerifyFull, configured},
		{"--all --max-pause 9s --bandwidth 0 --timeout 0s", recover.ModeLive, recover.VerifyStructure,
			recover.LiveOptions{MaxPause: 9 * time.Second}},
		{"backup --all --to /b", "", "", recover.LiveOptions{}},
		{"restore --from /b --no-reboot", "", "", recover.LiveOptions{}},
		{"reboot --all --timeout 8m", "", "", recover.LiveOptions{}},
	} {
		f := &fake{}
		o := do(t, f, call{args: c.args, env: env})
		if got := f.options; o.code != exitOK || got.Mode != c.mode || got.Verify != c.verify || got.Live != c.live {
			t.Errorf("%s: exit %d, %q: mode %q, verify %q, %+v", c.args, o.code, o.err, got.Mode, got.Verify, got.Live)
		}
	}
	if o := do(t, &fake{}, call{args: "--all --mode reboot", env: env}); o.code != exitUsage || !strings.Contains(o.err, "--verify full") {
		t.Errorf("mode reboot with verify structure of the environment: exit %d, %q", o.code, o.err)
	}
	if o := do(t, &fake{}, call{args: "--all --no-reboot", env: env}); o.code != exitUsage || !strings.Contains(o.err, "--mode auto") {
		t.Errorf("--no-reboot with mode live of the environment: exit %d, %q", o.code, o.err)
	}
}

func TestTheRefusalSaysWhatThePlanDoesToWhichGuest(t *testing.T) {
	live := recover.InstancePlan{Domain: "a", Action: recover.ActionLive}
	reboot := recover.InstancePlan{Domain: "b", Action: recover.ActionReboot}
	hard := recover.InstancePlan{Domain: "c", Action: recover.ActionHardReboot}
	for _, c := range []struct {
		plans []recover.InstancePlan
		want  string
	}{
		{[]recover.InstancePlan{live}, "it briefly suspends a"},
		{[]recover.InstancePlan{live, reboot}, "it pauses, destroys or starts b; it briefly suspends a"},
		{[]recover.InstancePlan{reboot, live, live}, "it pauses, destroys or starts b; it briefly suspends a, a"},
		{slices.Repeat([]recover.InstancePlan{live}, 12), "it briefly suspends a, a, a, a, a, a, a, a, a, a, 2 more"},
		{[]recover.InstancePlan{hard, hard}, "it reboots c, c"},
	} {
		if got := disturbance(c.plans); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
