package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/metrics"
	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/systemd"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

func newGuard(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "guard",
		Short: "Hold every instance file open and watch for deletions; a daemon for every compute node",
		Long:  help("guard"),
		Example: `  systemctl enable --now os-rescue-guard
  os-rescue guard --log-level debug
  os-rescue status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.guard(cmd) },
	}
	cmd.AddCommand(newGuardRelease(a))
	return cmd
}

func newGuardRelease(a *app) *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use:     "release UUID",
		Short:   "Make the guard release the deleted files of an instance",
		Long:    help("guard-release"),
		Example: `  os-rescue guard release 6f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, e, err := a.open(cmd, false)
			if err != nil {
				return err
			}
			defer e.close()
			status, err := e.Guard(ctx)
			if err != nil {
				return err
			}
			if !status.Running {
				return fmt.Errorf("%w: no guard runs on this host", recover.ErrUnusable)
			}
			for _, i := range status.Incidents {
				if i.UUID != args[0] && i.Domain != args[0] {
					continue
				}
				if err := a.mayRelease(ctx, i, yes); err != nil {
					return err
				}
				return e.GuardRelease(ctx, i.UUID)
			}
			return fmt.Errorf("%w: the guard holds no deleted files of instance %s", recover.ErrNothingSelected, args[0])
		},
	}
	addYes(cmd, &yes)
	return cmd
}

// mayRelease asks for consent to lose the deleted files of an instance.
func (a *app) mayRelease(ctx context.Context, i guard.Incident, yes bool) error {
	if yes {
		return nil
	}
	if !a.interactive() {
		return nobodyToAsk(fmt.Sprintf("the deleted files of %s that no other process has open would be gone for good", i.Domain))
	}
	for _, path := range i.Paths {
		a.say("  %s", path)
	}
	if i.More > 0 {
		a.say("  and %d more", i.More)
	}
	a.say("The guard holds these deleted files of %s (%s). Those that no other process has open will be gone for good. "+
		"Type yes to release them:",
		i.Domain, i.UUID)
	return agreed(ctx, a.stdin)
}

// guard runs the daemon until a signal ends it.
func (a *app) guard(cmd *cobra.Command) error {
	ctx, e, err := a.openAs(cmd, connection{libvirt: true, daemon: true})
	if err != nil {
		return err
	}
	defer e.close()
	log := zerolog.Ctx(ctx)
	nothingYet := func() {} // SIGHUP must not end a guard that is starting
	a.reload.Store(&nothingYet)
	defer a.reload.Store(nil)
	prepareDaemon(log)
	service, err := systemd.New()
	if err != nil {
		return fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	var shelf guard.Shelf // nil, not a nil pointer in it
	if service.Enabled() {
		shelf = service
	}
	inherited := service.Inherited()
	g, err := e.NewGuard(guardOptions(e.config), shelf, inherited)
	if err != nil {
		return err
	}
	a.rereadOnHangup(cmd, g, service, log)
	if err := serveMetrics(ctx, e.config.GuardMetrics, g); err != nil {
		return err
	}
	go beat(ctx, service, g)
	err = g.Run(ctx, func() {
		held := g.Status().Held
		log.Info().Int("files", held.Files).Int("inherited", len(inherited)).Msg("the guard is up")
		warn(log, service.Ready())
	})
	warn(log, service.Stopping())
	// systemd must have taken the last stored descriptors before this process ends.
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	warn(log, service.Barrier(limit))
	if err == nil {
		log.Info().Msg("the guard has ended")
	}
	return err
}

// serveMetrics serves the guard's metrics until the context ends; nothing if address
// is empty. An address that is in use does not end the guard.
func serveMetrics(ctx context.Context, address string, g guardian) error {
	if address == "" {
		return nil
	}
	handler, err := metrics.Handler(g.Status, thisBuild().forMetrics())
	if err != nil {
		return err
	}
	go func() {
		if err := metrics.Serve(ctx, address, handler); err != nil {
			zerolog.Ctx(ctx).Error().Err(err).Msg("the metrics are not served")
		}
	}()
	return nil
}

// beat tells systemd what the guard holds, and feeds its watchdog, for as long as the
// guard answers.
func beat(ctx context.Context, service *systemd.Notifier, g guardian) {
	every := 10 * time.Second
	if limit := service.WatchdogInterval(); limit > 0 {
		every = min(every, limit/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s := g.Status()
		_ = service.Status(fmt.Sprintf("%d files held, %d of them deleted; %d incidents", s.Held.Files, s.Held.DeletedFiles, len(s.Incidents)))
		_ = service.Watchdog()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// rereadOnHangup makes SIGHUP apply those settings that can change while the guard
// runs. An error in the configuration leaves all settings as they were.
func (a *app) rereadOnHangup(cmd *cobra.Command, g guardian, service *systemd.Notifier, log *zerolog.Logger) {
	reload := func() {
		warn(log, service.Reloading())
		c, err := a.loadConfig(cmd)
		if err != nil {
			log.Error().Err(err).Msg("the configuration stays as it was")
		} else {
			g.Configure(guardOptions(c))
			log.Info().Msg("the configuration was read again; host, paths, libvirt and guard.metrics take effect at a restart")
		}
		warn(log, service.Ready())
	}
	a.reload.Store(&reload)
}

// prepareDaemon sets up the process as the guard's unit does.
func prepareDaemon(log *zerolog.Logger) {
	// Lists of holders show this name (proc_pid_comm(5): 15 characters).
	warn(log, os.WriteFile("/proc/self/comm", []byte("os-rescue-guard"), 0))
	// As the unit has it. -1000 would be "never", also at MemoryMax= (proc_pid_oom_score_adj(5)).
	const score, last = "/proc/self/oom_score_adj", -999
	now, err := os.ReadFile(score)
	if adj, nerr := strconv.Atoi(strings.TrimSpace(string(now))); err != nil || nerr != nil || adj > last {
		warn(log, os.WriteFile(score, []byte(strconv.Itoa(last)), 0))
	}
	warn(log, keeper.RaiseFiles())
}

func warn(log *zerolog.Logger, err error) {
	if err != nil {
		log.Warn().Err(err).Msg("the guard continues without it")
	}
}
