package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
)

func TestWithoutNovaAPersonIsAskedAndAScriptIsToldWhatToDo(t *testing.T) {
	away := fmt.Errorf("%w: connection refused", recover.ErrCloudUnavailable)
	for _, c := range []struct {
		name  string
		away  error
		call  call
		code  int
		calls string
		err   string
		not   string
	}{
		{"yes, then yes to the plan", away, call{args: "--all", interactive: true, stdin: "yes\nyes\n"},
			exitOK, "prepare prepare execute close disconnect", "Type yes to go on without Nova", ""},
		{"yes, then no to the plan", away, call{args: "--all", interactive: true, stdin: "yes\nno\n"},
			exitUnrescued, "prepare prepare abandon close disconnect", "nothing was changed", ""},
		{"no", away, call{args: "--all", interactive: true, stdin: "no\n"},
			exitUnrescued, "prepare disconnect", "nothing was changed", ""},
		{"end of input", away, call{args: "--all", interactive: true},
			exitUnrescued, "prepare disconnect", "nothing was changed", ""},
		{"no terminal", away, call{args: "--all"},
			exitUnusable, "prepare disconnect", "add --offline", "Type yes"},
		{"--yes is no yes to that", away, call{args: "--all --yes", interactive: true, stdin: "yes\n"},
			exitUnusable, "prepare disconnect", "add --offline", "Type yes"},
		{"a dry run", away, call{args: "--all --dry-run", interactive: true, stdin: "yes\n"},
			exitOK, "dry-run dry-run disconnect", "Type yes to go on without Nova", ""},
		{"--offline asks nothing", away, call{args: "--all --offline --yes"},
			exitOK, "prepare execute close disconnect", "", "Nova does not answer"},
		{"a restore", away, call{args: "restore --from /b", interactive: true, stdin: "yes\nyes\n"},
			exitOK, "prepare prepare execute close disconnect", "Type yes to go on without Nova", ""},
		{"a backup never asks Nova", away, call{args: "backup --all --to /b --yes"},
			exitOK, "prepare execute close disconnect", "", "Nova does not answer"},
		{"a reboot can't do without", away, call{args: "reboot --all", interactive: true, stdin: "yes\n"},
			exitUnusable, "prepare disconnect", "run it again", "--offline"},
		{"a resume", away, call{args: "resume r1", interactive: true, stdin: "yes\nyes\n"},
			exitOK, "disconnect resume r1 resume r1 execute close disconnect", "Type yes to go on without Nova", ""},
		{"a resume with no terminal", away, call{args: "resume r1"},
			exitUnusable, "disconnect resume r1 disconnect", "add --offline", "Type yes"},
		{"a resume --offline", away, call{args: "resume r1 --offline --yes"},
			exitOK, "disconnect resume r1 execute close disconnect", "", ""},
		{"no credentials", recover.ErrCredentials, call{args: "--all", interactive: true, stdin: "yes\n"},
			exitUnusable, "prepare disconnect", "add --offline", "Type yes"},
		{"no right", recover.ErrForbidden, call{args: "--all"},
			exitUnusable, "prepare disconnect", "add --offline", "Type yes"},
		{"a Nova of long ago", nova.ErrTooOld, call{args: "--all"},
			exitUnusable, "prepare disconnect", "add --offline", "Type yes"},
		{"no such project", recover.ErrNoProject, call{args: "--project x"},
			exitUsage, "prepare disconnect", "no such project", "--offline"},
		{"the Keystone domain of a project", away, call{args: "--project x --project-domain d", interactive: true, stdin: "yes\n"},
			exitUsage, "prepare disconnect", "give the ID of the project", ""},
		{"the Keystone domain of a project, --offline", nil, call{args: "--project x --project-domain d --offline"},
			exitUsage, "disconnect", "give the ID of the project", ""},
		{"another host, --offline", nil, call{args: "--all --host cmp-8 --offline"},
			exitUsage, "disconnect", `of this host, "this-host", are known`, ""},
		{"another host, --offline --dry-run", nil, call{args: "--all --host cmp-8 --offline --dry-run"},
			exitUsage, "disconnect", `of this host, "this-host", are known`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{plan: disruptive(), away: c.away}
			o := do(t, f, c.call)
			if got := strings.Join(f.calls, " "); o.code != c.code || got != c.calls {
				t.Errorf("exit %d, calls %s, stderr %q", o.code, got, o.err)
			}
			if !strings.Contains(o.err, c.err) || c.not != "" && strings.Contains(o.err, c.not) {
				t.Errorf("stderr %q: it must say %q and not %q", o.err, c.err, c.not)
			}
			if o.code == exitOK && c.call.interactive && !f.options.Offline {
				t.Error("it did not go on offline")
			}
		})
	}
}

func TestASignalAtTheOfflineQuestionIsANo(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	never, hold := io.Pipe()
	defer hold.Close()
	f := &fake{away: recover.ErrCloudUnavailable}
	o := do(t, f, call{args: "--all", answers: never, signals: signals, interactive: true})
	if o.code != exitInterrupted || strings.Join(f.calls, " ") != "prepare disconnect" {
		t.Errorf("exit %d, calls %v, stderr %q", o.code, f.calls, o.err)
	}
}

func TestFlagAndVariableSelectTheCloud(t *testing.T) {
	for _, c := range []struct {
		args string
		env  map[string]string
		want string
	}{
		{"scan", nil, ""},
		{"scan", map[string]string{"OS_RESCUE_OS_CLOUD": "env", "OS_CLOUD": "client"}, "env"},
		{"scan", map[string]string{"OS_CLOUD": "client"}, ""}, // the client reads it by itself
		{"scan --os-cloud flag", map[string]string{"OS_RESCUE_OS_CLOUD": "env"}, "flag"},
		{"--os-cloud flag reboot --all", nil, "flag"},
	} {
		if o := do(t, &fake{}, call{args: c.args, env: c.env}); o.code != exitOK || o.config.OSCloud != c.want {
			t.Errorf("%s %v: exit %d, %q, want %q", c.args, c.env, o.code, o.config.OSCloud, c.want)
		}
	}
}

func TestTheDefaultsForNovaAreThoseOfPackageNova(t *testing.T) {
	o := do(t, &fake{}, call{args: "scan"})
	if o.config.NovaRetryFor != nova.DefaultRetryFor || o.config.RebootTimeout != 5*time.Minute {
		t.Errorf("got %s and %s", o.config.NovaRetryFor, o.config.RebootTimeout)
	}
}

func TestTheNextCommandSaysWhichCloud(t *testing.T) {
	f := &fake{report: recover.Report{Host: "h", Instances: []recover.Instance{{UUID: "u", Domain: "d", Verdict: recover.VerdictRecoverable}}}}
	if o := do(t, f, call{args: "scan --os-cloud admin"}); !strings.Contains(o.out, "os-rescue --os-cloud admin --all --dry-run") {
		t.Errorf("%q", o.out)
	}
}
