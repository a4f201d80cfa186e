package recover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"
)

// errNotYet: a hard reboot was asked for, and how it ends is not known yet.
var errNotYet = errors.New("the hard reboot has not ended")

// rebootTries is how often a hard reboot is asked for: an answer may be lost, and
// Nova's own stop, 15 s after it saw a domain end, may come between.
const rebootTries = 3

// hardReboot has Nova reboot the instance, and waits until done says that it is
// back: so one that is rebooting already, or was rebooted by a run that was
// killed, is not rebooted again. Nova sets the task before it answers 202 and
// clears it at the end (nova/compute/api.py, _hard_reboot_instance, and
// nova/compute/manager.py, reboot_instance): no task any more means that it is over.
//
// Once a reboot is asked for, the wish to stop is no longer heard: half a reboot
// can't be undone.
func (t *task) hardReboot(ctx context.Context, done rebootDone) error {
	return t.step(ctx, stepReboot, "", func() error {
		limit := t.s.plan.Options.Reboot.Timeout
		if limit <= 0 {
			limit = t.s.e.Settings.RebootTimeout
		}
		w := &rebootWait{t: t, done: done, end: time.Now().Add(limit)}
		return w.run(ctx)
	})
}

// rebootDone says whether an instance that Nova has as active, with no task under
// way, has its reboot behind it, and else what is missing.
type rebootDone func(ctx context.Context, ended rebootEnded) (bool, string, error)

// rebootEnded is the reboot of which the end was seen: a task was under way, and is
// no more.
type rebootEnded int

const (
	noReboot    rebootEnded = iota // none, for all that is known
	theirReboot                    // one that somebody else began
	ourReboot                      // one that Nova has accepted from this run
)

// rebootWait is one hard reboot from its request to its end.
type rebootWait struct {
	t    *task
	done rebootDone
	end  time.Time

	asked int    // requests that Nova may have accepted
	took  bool   // it has accepted one
	under bool   // a reboot is, or was, under way
	why   string // what is still missing
}

func (w *rebootWait) run(ctx context.Context) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.Multiplier = w.t.s.e.firstLook(), 3*time.Second, 1.5
	for {
		if w.asked > 0 {
			ctx = context.WithoutCancel(ctx)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		over, err := w.look(ctx)
		if over || w.asked > 0 {
			w.t.committed = true // a wish to stop does not make it undone
		}
		if over || err != nil {
			return err
		}
		if time.Now().After(w.end) {
			return fmt.Errorf("%w: %s", errNotYet, w.why)
		}
		pause(ctx, wait.NextBackOff())
	}
}

// look takes one look at the instance, and asks for the reboot if it is time.
func (w *rebootWait) look(ctx context.Context) (over bool, err error) {
	cloud, uuid := w.t.s.cloud, w.t.ip.UUID
	server, err := cloud.Server(ctx, uuid)
	if err != nil {
		return false, fmt.Errorf("ask Nova how it is: %w", err)
	}
	switch {
	case server.Unknown:
		w.why = "its cell does not answer"
		return false, nil
	case w.t.movedAway(server):
		return false, errMoved(server)
	case rebooting(server):
		w.under = true
		w.why = "Nova is at it (" + server.TaskState + ")"
		return false, nil
	case server.TaskState != "":
		w.why = "Nova has another task under way (" + server.TaskState + ")"
		return false, nil
	case server.VMState == VMActive || server.VMState == VMPaused:
		ok, why, err := w.done(ctx, w.ended())
		if ok || err != nil {
			return ok, err
		}
		w.why = why
	case server.VMState == VMError && w.under:
		return false, fmt.Errorf("Nova's hard reboot failed and left it in ERROR: %s", server.Fault) //nolint:staticcheck // a name
	}
	if w.under && server.VMState == VMActive && w.t.domainRuns(ctx) {
		return false, nil // it came back this moment, or on other files: the limit decides
	}
	return false, w.ask(ctx, server)
}

// ended says whose reboot has ended when no task is under way any more.
func (w *rebootWait) ended() rebootEnded {
	switch {
	case w.took:
		return ourReboot
	case w.under && w.asked == 0:
		return theirReboot
	default:
		return noReboot
	}
}

// ask asks for the reboot.
func (w *rebootWait) ask(ctx context.Context, server Server) error {
	if w.asked >= rebootTries {
		return fmt.Errorf("%w: it was asked for %d times, and the instance is %s (%s)", errNotYet, w.asked, server.Status, w.why)
	}
	if err := w.t.mayEnd(ctx); err != nil {
		return err
	}
	log := zerolog.Ctx(ctx)
	err := w.t.s.cloud.HardReboot(ctx, w.t.ip.UUID)
	log.Debug().Err(err).Str("status", server.Status).Msg("hard reboot asked for")
	switch {
	case err == nil:
		w.asked++
		w.under, w.took = true, true
		w.why = "Nova has accepted it"
	case errors.Is(err, ErrTaskUnderWay):
		w.why = err.Error() // it will pass; the limit decides
	case errors.Is(err, ErrCloudUnavailable):
		w.asked++ // the next look tells whether it was accepted
		w.why = err.Error()
	default:
		return err
	}
	return nil
}

// mayEnd refuses a hard reboot that would end a QEMU which holds lost files, or
// one that relies on another host's scan of long ago: files may have been deleted
// since the plan was made.
func (t *task) mayEnd(ctx context.Context) error {
	if r := t.s.plan.Options.Reboot; r.Remote {
		if age := time.Since(t.s.plan.Created); t.s.resuming && r.MaxAge > 0 && age > r.MaxAge {
			return fmt.Errorf("%w: the scan of its host is older than %s, and its files may be gone by now: scan that host again, and run os-rescue reboot with that", ErrRefused, age.Round(time.Second))
		}
		return nil
	}
	i, err := t.look(ctx)
	switch {
	case errors.Is(err, ErrNoDomain):
		return nil
	case err != nil:
		return err
	case i.PID != 0 && i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected && i.Verdict != VerdictUnknown:
		return fmt.Errorf("%w: its files are %s by now, and Nova would end its QEMU, which holds them: rescue it first (%s)", ErrRefused, i.Verdict, strings.Join(i.Reasons, "; "))
	}
	return nil
}

// movedAway is true when Nova has the instance on another host than when the run
// was planned.
func (t *task) movedAway(server Server) bool {
	return t.ip.Server != nil && !server.Unknown && server.Host != t.ip.Server.Host
}

func errMoved(server Server) error {
	return fmt.Errorf("%w: Nova has it on host %q by now: it was evacuated or migrated since the run began, and its files may be that host's", ErrRefused, server.Host)
}

// domainRuns is true when the instance's domain is active on this host.
func (t *task) domainRuns(ctx context.Context) bool {
	if t.s.plan.Options.Reboot.Remote {
		return false
	}
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	return err == nil && d.State != StateShutOff
}

// rebootedHere is true when the domain runs in a new QEMU that has exactly the
// published files open.
func (t *task) rebootedHere(ctx context.Context, ended rebootEnded) (bool, string, error) {
	i, err := t.look(ctx)
	switch {
	case errors.Is(err, ErrNoDomain):
		return false, "libvirt does not know its domain (yet)", nil
	case err != nil:
		return false, "", err
	case i.PID == 0:
		return false, "its domain is off", nil
	case i.process == t.ip.Process && (ended != theirReboot || t.ip.Action != ActionHardReboot):
		return false, "its QEMU is still the old one", nil
	case i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected || !t.holdsPublished(i):
		return false, fmt.Sprintf("its QEMU does not run on the published files (%s: %v)", i.Verdict, i.Reasons), nil
	}
	return true, "", nil
}

// rebootInNova brings an instance whose files are published back into service
// through Nova, in the state it was found in.
func (t *task) rebootInNova(ctx context.Context) error {
	if err := t.hardReboot(ctx, t.rebootedHere); err != nil {
		return fmt.Errorf("its files are back and proven, but it is not back in service: %w", err)
	}
	if !t.suspended.IsZero() {
		t.report.DowntimeSeconds = time.Since(t.suspended).Seconds()
	}
	return t.pauseAsFound(ctx)
}

// pauseAsFound pauses an instance that was found paused, the way it was.
func (t *task) pauseAsFound(ctx context.Context) error {
	if t.ip.Found != StatePaused {
		return nil
	}
	if t.s.cloud == nil || t.ip.Server == nil || t.ip.Server.VMState != VMPaused {
		return t.step(ctx, stepSuspend, "", func() error { return t.s.e.Hypervisor.Suspend(ctx, t.ip.UUID) })
	}
	return t.step(ctx, stepSuspend, "", func() error {
		if err := t.s.cloud.Pause(ctx, t.ip.UUID); err != nil {
			return err
		}
		for end := time.Now().Add(t.s.e.Settings.StartTimeout); ; pause(ctx, t.s.e.firstLook()) {
			server, err := t.s.cloud.Server(ctx, t.ip.UUID)
			if err != nil || server.VMState == VMPaused {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("%w: Nova has not paused it again in %s: it is %s", errNotYet, t.s.e.Settings.StartTimeout, server.Status)
			}
		}
	})
}
