package render

import (
	"bytes"
	"encoding/json"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
)

// decoded returns value as a script reads it.
func decoded(t *testing.T, value any) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(written(t, func(b *bytes.Buffer) error { return JSON(b, value) })), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// has checks that an object has every field that scripts depend on.
func has(t *testing.T, what string, object any, fields ...string) map[string]any {
	t.Helper()
	m, ok := object.(map[string]any)
	if !ok {
		t.Fatalf("%s is no object: %v", what, object)
	}
	for _, f := range fields {
		if _, ok := m[f]; !ok {
			var there []string
			for k := range m {
				there = append(there, k)
			}
			sort.Strings(there)
			t.Errorf("%s has no %q, only %v", what, f, there)
		}
	}
	return m
}

func first(t *testing.T, object map[string]any, field string) any {
	t.Helper()
	list, ok := object[field].([]any)
	if !ok || len(list) == 0 {
		t.Fatalf("%s is no list with something in it: %v", field, object[field])
	}
	return list[0]
}

func TestTheJSONOfAScanHasWhatScriptsDependOn(t *testing.T) {
	disk := recover.File{Format: "qcow2", Holders: []recover.Holder{{PID: 1}}}
	report := recover.Report{Host: "h", Instances: []recover.Instance{{Files: []recover.File{disk}}}}
	r := has(t, "the report", decoded(t, report), "host", "instances")
	i := has(t, "an instance", first(t, r, "instances"), "uuid", "domain", "pid", "state", "project_id", "project_name", "verdict", "files")
	f := has(t, "a file", first(t, i, "files"), "path", "role", "format", "size", "allocated", "device", "inode", "state", "holders")
	has(t, "a holder", first(t, f, "holders"), "pid", "fd", "process")
}

func TestTheJSONOfARunHasWhatScriptsDependOn(t *testing.T) {
	report := recover.RunReport{Instances: []recover.InstanceReport{{Error: "x", Steps: []recover.StepReport{{Name: "copy"}}}}}
	r := has(t, "the report", decoded(t, report), "run", "host", "mode", "instances")
	i := has(t, "an instance", first(t, r, "instances"),
		"uuid", "domain", "outcome", "steps", "pause_seconds", "downtime_seconds", "bytes", "error")
	has(t, "a step", first(t, i, "steps"), "name", "started", "seconds")
}

func TestTheJSONSaysHowAnInstanceIsRescuedLiveAndHowItWasProven(t *testing.T) {
	run := recover.RunReport{Instances: []recover.InstanceReport{{Mode: recover.ModeLive, Verified: recover.VerifyStructure}}}
	i := has(t, "an instance", first(t, decoded(t, run), "instances"), "mode", "verified")
	if i["mode"] != "live" || i["verified"] != "structure" {
		t.Errorf("mode %v, verified %v", i["mode"], i["verified"])
	}
	plan := recover.Plan{Instances: []recover.InstancePlan{
		{Action: recover.ActionReboot, NotLive: "it has snapshots"}, {Action: recover.ActionLive},
	}}
	list := decoded(t, plan)["instances"].([]any)
	if i = has(t, "an instance", list[0], "action", "not_live"); i["not_live"] != "it has snapshots" {
		t.Errorf("not_live %v", i["not_live"])
	}
	if i = has(t, "an instance", list[1], "action"); i["action"] != "live" || i["not_live"] != nil {
		t.Errorf("action %v, not_live %v", i["action"], i["not_live"])
	}
}

func TestTheWordsOfTheJSONAreThoseThatScriptsKnow(t *testing.T) {
	var got []string
	for _, w := range []any{
		recover.RoleDisk, recover.RoleBacking, recover.RoleConfigDrive, recover.RoleConsoleLog, recover.RoleDiskInfo, recover.RoleNVRAM,
		recover.RoleOther,
		recover.FilePresent, recover.FileDeleted, recover.FileDisplaced, recover.FileReplaced, recover.FileMissing,
		recover.OutcomeRescued, recover.OutcomeIntact, recover.OutcomeSkipped, recover.OutcomeFailed,
	} {
		b, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Trim(string(b), `"`))
	}
	want := strings.Fields("disk backing config-drive console-log disk-info nvram other " +
		"present deleted displaced replaced missing rescued intact skipped failed")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAListThatIsEmptyIsNeverNull(t *testing.T) {
	for name, value := range map[string]any{
		"empty scan":     recover.Report{},
		"empty instance": recover.Report{Instances: []recover.Instance{{}}},
		"empty file":     recover.Report{Instances: []recover.Instance{{Files: []recover.File{{}}}}},
		"empty run":      recover.RunReport{},
		"empty result":   recover.RunReport{Instances: []recover.InstanceReport{{}}},
		"empty plan":     recover.Plan{},
		"empty status":   recover.RunStatus{},
		"status":         recover.RunStatus{Instances: []recover.InstanceStatus{{}}},
		"empty overview": Overview{},
		"overview":       Overview{Runs: []recover.RunStatus{{}}},
	} {
		if got := written(t, func(b *bytes.Buffer) error { return JSON(b, value) }); strings.Contains(got, "null") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestWritingJSONDoesNotChangeTheReport(t *testing.T) {
	report := recover.Report{Instances: []recover.Instance{{}}}
	_ = decoded(t, report)
	if report.Instances[0].Files != nil {
		t.Error("the caller's report was changed")
	}
}
