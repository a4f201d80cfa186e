package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/guard"
)

// An error in the configuration changes nothing. SIGTERM ends the guard.
func TestSIGHUPMakesTheGuardReadItsConfigurationAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "os-rescue.yaml")
	set := func(text string) {
		t.Helper()
		err := os.WriteFile(file+".new", []byte(text), 0o600)
		if err == nil {
			err = os.Rename(file+".new", file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set("guard: {interval: 20s, grace: 2h, min_free_percent: 7}\n")
	signals := make(chan os.Signal)
	f := &fake{started: make(chan *fakeGuard, 1)}
	ended := make(chan outcome, 1)
	go func() {
		ended <- do(t, f, call{args: "guard --config " + file, signals: signals})
	}()
	g := <-f.started
	if o := <-g.options; o.Interval != 20*time.Second || o.Grace != 2*time.Hour || o.MinFree != 0.07 || o.Lock || o.SignIn != nil {
		t.Errorf("it starts with %+v", o)
	}
	set("guard: {interval: 30s, os_cloud: guard, lock: true}\n")
	signals <- unix.SIGHUP
	if o := <-g.options; o.Interval != 30*time.Second || !o.Lock || o.SignIn == nil {
		t.Errorf("then it has %+v", o)
	}
	set("guard: {lock: true}\n") // without credentials
	signals <- unix.SIGHUP
	signals <- unix.SIGHUP // received after the one before was handled
	set("guard: {interval: 40s}\n")
	signals <- unix.SIGHUP
	if o := <-g.options; o.Interval != 40*time.Second {
		t.Errorf("after a mistake it has %+v", o)
	}
	signals <- unix.SIGTERM
	o := <-ended
	if o.code != 0 || !strings.Contains(o.err, "guard.os_cloud names no credentials") {
		t.Errorf("it ended with %d and said:\n%s", o.code, o.err)
	}
}

func TestReleasingHeldFilesNeedsConsent(t *testing.T) {
	held := guard.Status{Running: true, Incidents: []guard.Incident{
		{UUID: "u1", Domain: "instance-00000001", Paths: []string{"/i/u1/disk"}},
	}}
	for _, c := range []struct {
		name, args, stdin string
		interactive       bool
		status            guard.Status
		code              int
		released          bool
	}{
		{"nobody to ask", "guard release u1", "", false, held, 2, false},
		{"--yes", "guard release u1 --yes", "", false, held, 0, true},
		{"by the domain's name", "guard release instance-00000001 --yes", "", false, held, 0, true},
		{"yes", "guard release u1", "yes\n", true, held, 0, true},
		{"no", "guard release u1", "no\n", true, held, 1, false},
		{"another instance", "guard release u2 --yes", "", false, held, 2, false},
		{"no guard", "guard release u1 --yes", "", false, guard.Status{}, 3, false},
	} {
		f := &fake{guarded: c.status}
		o := do(t, f, call{args: c.args, stdin: c.stdin, interactive: c.interactive})
		if o.code != c.code || (len(f.released) == 1) != c.released {
			t.Errorf("%s: exit code %d, want %d; released %v\n%s", c.name, o.code, c.code, f.released, o.err)
		}
	}
}
