package failpoint

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAMalformedFailpointIsAnError(t *testing.T) {
	for _, spec := range []string{
		"", "copy.begin", "=kill", "copy.begin=", "copy.begin=die", "copy.begin#0=kill", "copy.begin#x=kill", "#1=kill",
		"copy.begin=exec:", "copy.begin=sleep:5", "a=kill,,b=kill",
	} {
		if _, err := Parse(spec); !errors.Is(err, ErrSyntax) {
			t.Errorf("Parse(%q): %v", spec, err)
		}
	}
}

func TestAnActionHappensAtItsPointAndItsTurn(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	script := "#!/bin/sh\necho \"$1\" >> " + filepath.Join(dir, "out") + "\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Parse("copy.begin#2=exec:" + program + ", copy.done=exec:" + program + ",copy.done=sleep:1ns")
	if err != nil {
		t.Fatal(err)
	}
	seen := func() string {
		b, _ := os.ReadFile(filepath.Join(dir, "out"))
		return string(b)
	}
	for _, step := range []struct{ point, want string }{
		{"copy.begin", ""},
		{"other", ""},
		{"copy.begin", "copy.begin\n"},
		{"copy.begin", "copy.begin\n"},
		{"copy.done", "copy.begin\ncopy.done\n"},
		{"copy.done", "copy.begin\ncopy.done\n"},
	} {
		s.Hit(context.Background(), step.point)
		if got := seen(); got != step.want {
			t.Fatalf("after %s the program was run with %q, want %q", step.point, got, step.want)
		}
	}
}

func TestASignalIsHandledBeforeTheRunContinues(t *testing.T) {
	for action, sig := range map[string]os.Signal{"int": unix.SIGINT, "hup": unix.SIGHUP, "term": unix.SIGTERM} {
		ctx, stop := signal.NotifyContext(context.Background(), sig)
		defer stop()
		s, err := Parse("p=" + action)
		if err != nil {
			t.Fatal(err)
		}
		s.Hit(ctx, "p")
		if ctx.Err() == nil {
			t.Errorf("%s: the run goes on unaware of the signal", action)
		}
	}
}

func TestKillEndsTheProcessAtOnce(t *testing.T) {
	if os.Getenv("FAILPOINT_TEST_CHILD") != "" {
		s, err := Parse("p=kill")
		if err != nil {
			t.Fatal(err)
		}
		s.Hit(context.Background(), "p")
		t.Fatal("still alive")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKillEndsTheProcessAtOnce$")
	cmd.Env = append(os.Environ(), "FAILPOINT_TEST_CHILD=1")
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("the child ended with %v, want SIGKILL", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("copy.begin=kill,copy.done#3=sleep:1s,x=exec:/bin/true")
	f.Fuzz(func(t *testing.T, spec string) {
		if s, err := Parse(spec); err == nil && len(s.points) == 0 {
			t.Error("no failpoint and no error")
		}
	})
}
