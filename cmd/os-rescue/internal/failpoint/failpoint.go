package failpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSyntax: Parse does not accept a list of failpoints.
var ErrSyntax = errors.New("bad failpoint")

// Set is a list of failpoints. It is safe for concurrent use.
type Set struct {
	mu     sync.Mutex
	hits   map[string]int
	points []failpoint
}

type failpoint struct {
	point  string
	nth    int
	action func(ctx context.Context, point string)
}

// Parse reads POINT=ACTION[,POINT=ACTION...]. A POINT is a journal point and
// means its first time; POINT#3 means its third. An ACTION is one of
//
//	kill            the process kills itself with SIGKILL
//	int, hup, term  it sends itself that signal, and waits until the signal is handled
//	exec:PATH       it runs a program with the point as its argument, and waits
//	sleep:DURATION  it waits
//
// ErrSyntax names the mistake.
func Parse(spec string) (*Set, error) {
	s := &Set{hits: make(map[string]int)}
	for _, item := range strings.Split(spec, ",") {
		point, action, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || point == "" {
			return nil, fmt.Errorf("%w: %q is not POINT=ACTION", ErrSyntax, item)
		}
		f := failpoint{point: point, nth: 1}
		if name, nth, ok := strings.Cut(point, "#"); ok {
			n, err := strconv.Atoi(nth)
			if err != nil || n < 1 || name == "" {
				return nil, fmt.Errorf("%w: %q: after the # comes a number from 1", ErrSyntax, item)
			}
			f.point, f.nth = name, n
		}
		var err error
		if f.action, err = parseAction(action); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrSyntax, item, err)
		}
		s.points = append(s.points, f)
	}
	return s, nil
}

func parseAction(action string) (func(context.Context, string), error) {
	name, argument, _ := strings.Cut(action, ":")
	switch {
	case action == "kill":
		return func(context.Context, string) { kill() }, nil
	case action == "int":
		return func(ctx context.Context, _ string) { send(ctx, unix.SIGINT) }, nil
	case action == "hup":
		return func(ctx context.Context, _ string) { send(ctx, unix.SIGHUP) }, nil
	case action == "term":
		return func(ctx context.Context, _ string) { send(ctx, unix.SIGTERM) }, nil
	case name == "exec" && argument != "":
		return func(ctx context.Context, point string) { execute(context.WithoutCancel(ctx), argument, point) }, nil
	case name == "sleep":
		d, err := time.ParseDuration(argument)
		if err != nil {
			return nil, err
		}
		return func(context.Context, string) { time.Sleep(d) }, nil
	}
	return nil, fmt.Errorf("the action %q is none of kill, int, hup, term, exec:PATH, sleep:DURATION", action)
}

// Hit carries out the actions of a point that was reached. It returns when they are
// done; after a signal, when the signal has ended ctx.
func (s *Set) Hit(ctx context.Context, point string) {
	s.mu.Lock()
	s.hits[point]++
	var due []func(context.Context, string)
	for _, f := range s.points {
		if f.point == point && f.nth == s.hits[point] {
			due = append(due, f.action)
		}
	}
	s.mu.Unlock()
	for _, action := range due {
		action(ctx, point)
	}
}

func kill() {
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // until it arrives
}

func send(ctx context.Context, s unix.Signal) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, s)
	defer signal.Stop(heard)
	_ = unix.Kill(os.Getpid(), s)
	<-heard
	<-ctx.Done()
}

// execute runs a program of the test. Its output goes to standard error, like the
// messages of the run. Its exit code does not matter to the run.
func execute(ctx context.Context, path, point string) {
	cmd := exec.CommandContext(ctx, path, point)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "failpoint %s: %s: %v\n", point, path, err)
	}
}
