package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/os-rescue/os-rescue/test/lab"
)

// show prints the demonstration. To the lab it is a test.
type show struct {
	ctx      context.Context
	colors   bool
	scenes   int
	failure  string
	cleanups []func()
}

var _ lab.T = (*show)(nil)

// stopped ends the demonstration early.
type stopped struct{}

func newShow() *show {
	plain := os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"
	return &show{colors: !plain && term.IsTerminal(int(os.Stdout.Fd()))}
}

// play plays the scenes, and always cleans up.
func (s *show) play(scenes func(*show)) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	s.ctx = ctx
	defer func() {
		for _, cleanup := range slices.Backward(s.cleanups) {
			cleanup()
		}
		if s.failure != "" {
			fmt.Printf("\n%s\n", s.paint(red, "The demonstration failed: "+s.failure))
		}
	}()
	defer func() {
		if r := recover(); r != nil && r != any(stopped{}) {
			panic(r)
		}
	}()
	scenes(s)
}

func (s *show) exitCode() int {
	if s.failure != "" {
		return 1
	}
	return 0
}

// The colours, as ANSI numbers.
const (
	bold  = "1"
	blue  = "34;1"
	green = "32"
	red   = "31;1"
)

func (s *show) paint(color, text string) string {
	if !s.colors {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func (s *show) title(text string) { fmt.Printf("\n%s\n", s.paint(green, text)) }

func (s *show) say(text string) { fmt.Println(text) }

// scene begins the next part.
func (s *show) scene(title string) {
	s.scenes++
	heading := fmt.Sprintf("%d. %s", s.scenes, title)
	fmt.Printf("\n%s\n%s\n", s.paint(blue, heading), s.paint(blue, strings.Repeat("-", len(heading))))
}

func (s *show) prompt(line string) { fmt.Printf("%s\n", s.paint(bold, "# "+line)) }

// guest prints a message of the guest.
func (s *show) guest(format string, args ...any) {
	fmt.Printf("The guest says: %s\n", fmt.Sprintf(format, args...))
}

// Helper does nothing.
func (s *show) Helper() {}

// Logf writes to standard error.
func (s *show) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Fatalf ends the play.
func (s *show) Fatalf(format string, args ...any) {
	s.failure = fmt.Sprintf(format, args...)
	if s.ctx.Err() != nil {
		s.failure = "interrupted"
	}
	panic(stopped{})
}

// Cleanup notes a function to call at the end, the last first.
func (s *show) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// Failed is true after Fatalf, except after an interruption, which needs no logs.
func (s *show) Failed() bool { return s.failure != "" && s.ctx.Err() == nil }

// Context ends with the play.
func (s *show) Context() context.Context { return s.ctx }
