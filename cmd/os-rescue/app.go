package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// app is one call of the program.
type app struct {
	sys    system
	stderr *console.Stderr
	stdin  *bufio.Reader // a person's answers
	began  bool          // cobra understood the command line

	// endings are of the commands that have exit codes of their own.
	endings map[*cobra.Command]ending

	reload atomic.Pointer[func()] // called at SIGHUP; nil: SIGHUP stops the program

	configFile string
	output     string
	noColor    bool
	quiet      bool
}

// ending turns the error of a call, or nil, into the error by which the call ends.
// cmd is the command that ran, or the root command if cobra did not understand the
// command line.
type ending func(cmd *cobra.Command, err error) error

// carryOut carries out one call and returns its exit code.
func carryOut(sys system) int {
	a := &app{sys: sys, stderr: console.NewStderr(sys.stderr), stdin: bufio.NewReader(sys.stdin)}
	defer a.stderr.Close()
	ctx, stop := stopOnSignal(context.Background(), sys.signals, a.stderr, a.daemon)
	defer stop()

	root := newRoot(a)
	root.SetArgs(sys.args)
	root.SetOut(sys.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.began {
		err = usageError{err}
	}
	if end := a.endings[meant(root, cmd, sys.args)]; end != nil {
		err = end(cmd, err)
	}
	if err != nil && !told(err) {
		a.say("os-rescue: %s", recover.InWords(err.Error()))
	}
	if errors.As(err, &usageError{}) {
		a.say("Help: os-rescue --help")
	}
	return exitCode(err)
}

// daemon returns the function that a daemon calls at SIGHUP; nil if this is none.
func (a *app) daemon() func() {
	if reload := a.reload.Load(); reload != nil {
		return *reload
	}
	return nil
}

// say writes text to standard error as one line.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintln(a.stderr, printable.OneLine(fmt.Sprintf(format, args...)))
}

// prompt writes text to standard error, and waits for a moment until a terminal shows it.
func (a *app) prompt(format string, args ...any) {
	_, _ = io.WriteString(a.stderr, string(printable.Sprintf(format, args...)))
	a.stderr.Flush(time.Second)
}

// usageError is an error of cobra: an unknown flag or command.
type usageError struct{ error }

func (e usageError) Unwrap() []error { return []error{e.error, recover.ErrUsage} }

// opened is an engine that is ready for a command.
type opened struct {
	engine
	config config.Config
	close  func()
}

// open checks that the user is root, reads the configuration, puts the logger into
// the context and makes the engine. The checks of the configuration run before
// anything is connected. The caller calls close.
func (a *app) open(cmd *cobra.Command, libvirt bool, checks ...func(config.Config) error) (context.Context, opened, error) {
	return a.openAs(cmd, connection{libvirt: libvirt}, checks...)
}

// openAs is open for a certain kind of connection.
func (a *app) openAs(cmd *cobra.Command, kind connection, checks ...func(config.Config) error) (context.Context, opened, error) {
	ctx := cmd.Context()
	if !a.sys.isRoot {
		return ctx, opened{}, errNotRoot
	}
	c, err := a.loadConfig(cmd)
	if err != nil {
		return ctx, opened{}, err
	}
	for _, check := range checks {
		if err := check(c); err != nil {
			return ctx, opened{}, err
		}
	}
	logger := a.logger(c)
	for _, note := range c.Notes {
		logger.Warn().Msg(note)
	}
	ctx = logger.WithContext(ctx)
	kind.config, kind.env, kind.global, kind.logger, kind.progress = c, a.sys.env, globalFlags(cmd), logger, a.progress()
	e, done, err := a.sys.connect(ctx, kind)
	if err != nil {
		return ctx, opened{}, err
	}
	return ctx, opened{engine: e, config: c, close: done}, nil
}

func (a *app) loadConfig(cmd *cobra.Command) (config.Config, error) {
	return config.Load(cmd.Context(), config.Sources{
		File: a.configFile, Env: a.sys.env, Flags: cmd.Flags(), Hostname: a.sys.hostname, Proc: a.sys.proc, FlagOf: flagOf(cmd),
	})
}

// globalFlags returns those of the given flags that a child process needs.
func globalFlags(cmd *cobra.Command) []string {
	var given []string
	for _, name := range []string{"config", "libvirt-uri"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			given = append(given, "--"+name+"="+f.Value.String())
		}
	}
	return given
}

// flagOf returns the flags of a command that set keys of the configuration.
func flagOf(cmd *cobra.Command) map[string]string {
	flags := map[string]string{
		"libvirt.uri": "libvirt-uri",
		"os_cloud":    "os-cloud",
		"log.level":   "log-level",
		"log.format":  "log-format",
		"parallel":    "parallel",
	}
	if cmd.Flags().Lookup(maxPause) != nil {
		for key, flag := range map[string]string{
			"mode": "mode", "verify": "verify", "live.max_pause": maxPause, "live.bandwidth": "bandwidth", "live.timeout": "timeout",
		} {
			flags[key] = flag
		}
	}
	if cmd.Flags().Lookup(maxParallel) != nil {
		flags["parallel"] = maxParallel
	}
	return flags
}

func (a *app) logger(c config.Config) zerolog.Logger {
	_, isTerminal := terminal(a.sys.stderr)
	w := printable.JSON(a.stderr)
	if c.LogFormat == "pretty" || c.LogFormat == "auto" && isTerminal {
		w = zerolog.ConsoleWriter{
			Out: a.stderr, NoColor: !a.colors(a.sys.stderr), TimeFormat: time.TimeOnly, FormatPrepare: cleanEvent,
		}
	}
	level := c.LogLevel
	if a.quiet {
		level = zerolog.ErrorLevel
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// cleanEvent makes what is logged fit for a terminal.
func cleanEvent(event map[string]any) error {
	for key, value := range event {
		event[key] = cleanValue(value)
	}
	return nil
}

// cleanValue cleans the strings in a value of JSON.
func cleanValue(value any) any {
	switch v := value.(type) {
	case string:
		return printable.OneLine(v)
	case []any:
		for i := range v {
			v[i] = cleanValue(v[i])
		}
	case map[string]any:
		_ = cleanEvent(v)
	}
	return value
}

func (a *app) progress() recover.Progress {
	if a.quiet {
		return recover.NoProgress{}
	}
	if f, ok := terminal(a.sys.stderr); ok && a.sys.env["TERM"] != "dumb" {
		return console.NewBars(a.stderr, f)
	}
	return console.NewLines(a.stderr)
}

// colors is true if w is a terminal and colours are not turned off
// (https://no-color.org).
func (a *app) colors(w io.Writer) bool {
	_, ok := terminal(w)
	return ok && !a.noColor && a.sys.env["NO_COLOR"] == "" && a.sys.env["TERM"] != "dumb"
}

// interactive is true if there is somebody to ask.
func (a *app) interactive() bool {
	_, ok := terminal(a.sys.stdin)
	return ok || a.sys.interactive
}

// text returns how text is written to w.
func (a *app) text(cmd *cobra.Command, w io.Writer) render.Text {
	again := "os-rescue"
	for _, name := range []string{"config", "libvirt-uri", "os-cloud"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			again += " --" + name + " " + render.Quote(f.Value.String())
		}
	}
	return render.Text{Color: a.colors(w), Again: again}
}

// result writes a command's result to standard output: value as JSON, or the text
// that text writes.
func (a *app) result(value any, text func(io.Writer) error) error {
	var err error
	if a.output == "json" {
		err = render.JSON(a.sys.stdout, value)
	} else {
		err = text(a.sys.stdout)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}
