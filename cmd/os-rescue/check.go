package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/metrics"
	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
)

const (
	checkTimeout = 10 * time.Second
	// checkGrace is how long a check whose time is over may take to report what it
	// has found so far.
	checkGrace = 500 * time.Millisecond
)

// checkCall is one call of "os-rescue check". Every outcome of it is a level.
type checkCall struct {
	a          *app
	options    check.Options
	prometheus string
	timeout    time.Duration

	report *check.Report // nil until the check was made
}

func newCheck(a *app) *cobra.Command {
	c := &checkCall{a: a}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Report this host's health, for cron and monitoring; changes nothing",
		Long:  help("check"),
		Example: `  os-rescue check
  os-rescue check --require-guard --warning-held 50GiB --critical-held 200GiB
  os-rescue check --output json | jq -r '.findings[] | "\(.level) \(.text)"'

  # cron (/etc/cron.d/os-rescue)
  * * * * * root os-rescue check --prometheus /var/lib/prometheus/node-exporter/os-rescue.prom > /dev/null

  # NRPE (nrpe.cfg), with a rule in sudoers: nagios ALL=(root) NOPASSWD: /usr/local/sbin/os-rescue check
  command[check_os_rescue]=/usr/bin/sudo /usr/local/sbin/os-rescue check`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	a.endings[cmd] = c.end
	f := cmd.Flags()
	f.IntVar(&c.options.Warning, "warning", 1, "WARNING at this `number` of instances with lost files")
	f.IntVar(&c.options.Critical, "critical", 1, "CRITICAL at this `number` of instances with lost files")
	f.Var((*byteSize)(&c.options.WarningHeld), "warning-held",
		"WARNING when deleted files that are still open take more than this many `bytes`, like 50GiB; 0 is no limit")
	f.Var((*byteSize)(&c.options.CriticalHeld), "critical-held",
		"CRITICAL when deleted files that are still open take more than this many `bytes`; 0 is no limit")
	f.DurationVar(&c.options.MaxAge, "max-age", check.DefaultMaxAge, "how old the guard's last scan may be")
	f.BoolVar(&c.options.RequireGuard, "require-guard", false, "WARNING when no guard runs on this host")
	f.DurationVar(&c.timeout, "timeout", checkTimeout, "UNKNOWN when the check takes longer")
	f.StringVar(&c.prometheus, "prometheus", "", "also write the result to this `file`, for node_exporter's textfile collector")
	return cmd
}

// run makes the check. It ends in time even if something hangs: monitoring kills a
// plugin that does not, and then knows nothing.
func (c *checkCall) run(cmd *cobra.Command) error {
	switch o := c.options; {
	case c.timeout <= 0 || o.MaxAge <= 0:
		return fmt.Errorf("%w: --timeout and --max-age must be more than 0", recover.ErrUsage)
	case o.Warning < 1 || o.Critical < 1:
		return fmt.Errorf("%w: --warning and --critical must be 1 or more", recover.ErrUsage)
	case o.Warning > o.Critical:
		return fmt.Errorf("%w: --warning %d is above --critical %d: raise --critical too", recover.ErrUsage, o.Warning, o.Critical)
	case o.CriticalHeld > 0 && o.WarningHeld > o.CriticalHeld:
		return fmt.Errorf("%w: --warning-held is more than --critical-held", recover.ErrUsage)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	cmd.SetContext(ctx)
	type answer struct {
		report check.Report
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		report, err := c.look(cmd)
		answers <- answer{report, err}
	}()
	var late <-chan time.Time
	done := ctx.Done()
	for {
		select {
		case a := <-answers:
			if a.err == nil {
				c.report = &a.report
			}
			return a.err
		case <-done:
			done, late = nil, time.After(checkGrace)
		case <-late:
			if cmd.Context().Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("the check was not finished: %w", context.Cause(ctx))
			}
			return fmt.Errorf("the check did not finish within %s", c.timeout)
		}
	}
}

// look asks the engine. It connects to libvirt only if the guard's answer is not
// enough.
func (c *checkCall) look(cmd *cobra.Command) (check.Report, error) {
	ctx, e, err := c.a.open(cmd, false)
	if err != nil {
		return check.Report{}, err
	}
	defer e.close()
	return e.Check(ctx, c.options, func(ctx context.Context) (recover.Report, error) {
		_, e, err := c.a.open(cmd, true)
		if err != nil {
			return recover.Report{}, err
		}
		defer e.close()
		return e.Scan(ctx, recover.Hints{})
	})
}

// end writes what the check found, or the error by which it ended, and returns the
// error with the level's exit code. --help writes nothing more.
func (c *checkCall) end(cmd *cobra.Command, err error) error {
	if err == nil && c.report == nil {
		return levelError(check.Unknown)
	}
	if err != nil {
		report := check.Unmade(c.a.sys.hostname, err)
		if errors.Is(err, recover.ErrUsage) {
			report.Findings[0].Next = "os-rescue check --help"
		}
		c.report = &report
	}
	if c.prometheus != "" {
		if err := metrics.WriteFile(c.prometheus, *c.report, thisBuild().forMetrics()); err != nil {
			c.report.Add(check.Finding{
				Level: check.Unknown, Kind: check.FindingNotLooked, Text: fmt.Sprintf("the metrics could not be written: %v", err),
			})
		}
	}
	err = c.a.result(*c.report, func(w io.Writer) error { return render.WriteCheck(w, c.a.text(cmd, w), *c.report, c.options) })
	if err != nil {
		return err // exit code 3, which is UNKNOWN
	}
	return levelError(c.report.Level)
}

// levelError ends a check that has written its result; nil for OK.
func levelError(level check.Level) error {
	if level == check.OK {
		return nil
	}
	return &exitError{code: level.Code(), text: "the level is " + string(level), told: true}
}

// byteSize is the value of a flag in bytes, given with or without a unit.
type byteSize int64

// Set is part of pflag.Value.
func (b *byteSize) Set(s string) error {
	n, err := humanize.ParseBytes(strings.TrimSpace(s))
	if err != nil || n > math.MaxInt64 {
		return errors.New("it must be a number of bytes, like 500M or 50GiB; 0 is no limit")
	}
	*b = byteSize(n)
	return nil
}

// String is part of pflag.Value.
func (b *byteSize) String() string { return fmt.Sprint(int64(*b)) }

// Type is part of pflag.Value.
func (b *byteSize) Type() string { return "bytes" }
