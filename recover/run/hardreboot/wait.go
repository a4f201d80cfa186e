package hardreboot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// rebootTries is how often a hard reboot is asked for: an answer may be lost, and
// Nova's own stop, 15 s after it saw a domain end, may come between.
const rebootTries = 3

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
	t     *task.Task
	guest *guest.Guest
	done  rebootDone
	end   time.Time

	asked int    // requests that Nova may have accepted
	took  bool   // it has accepted one
	under bool   // a reboot is, or was, under way
	why   string // what is still missing
}

func (w *rebootWait) run(ctx context.Context) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.Multiplier = w.t.Run.PollInterval, 3*time.Second, 1.5
	for {
		if w.asked > 0 {
			ctx = context.WithoutCancel(ctx)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		over, err := w.look(ctx)
		if over || w.asked > 0 {
			// A wish to stop does not make it undone.
			if err := w.t.Enter(ctx, task.EventCommit); err != nil {
				return err
			}
		}
		if over || err != nil {
			return err
		}
		if time.Now().After(w.end) {
			return fmt.Errorf("%w: %s", errNotYet, w.why)
		}
		recover.Pause(ctx, wait.NextBackOff())
	}
}

// look takes one look at the instance, and asks for the reboot if it is time.
func (w *rebootWait) look(ctx context.Context) (over bool, err error) {
	cloud, uuid := w.t.Run.Cloud, w.t.Plan.UUID
	server, err := cloud.Server(ctx, uuid)
	if deleted := task.Deleted(server, err); deleted != nil {
		return false, &task.Final{Err: deleted}
	}
	if err != nil {
		return false, fmt.Errorf("ask Nova how it is: %w", err)
	}
	switch {
	case server.Unknown:
		w.why = "its cell does not answer"
		return false, nil
	case movedAway(w.t.Plan, server):
		return false, errMoved(server)
	case recover.IsRebooting(server):
		w.under = true
		w.why = "Nova is rebooting it (task_state " + server.TaskState + ")"
		return false, nil
	case server.TaskState != "":
		w.why = "Nova has another task under way (" + server.TaskState + ")"
		return false, nil
	case server.VMState == recover.VMActive || server.VMState == recover.VMPaused:
		ok, why, err := w.done(ctx, w.ended())
		if ok || err != nil {
			return ok, err
		}
		w.why = why
	case server.VMState == recover.VMError && w.under:
		return false, fmt.Errorf("Nova's hard reboot failed and left it in ERROR: %s", server.Fault) //nolint:staticcheck // a name
	}
	if w.under && server.VMState == recover.VMActive && w.guest.RunsHere(ctx) {
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
func (w *rebootWait) ask(ctx context.Context, server recover.Server) error {
	if w.asked >= rebootTries {
		return fmt.Errorf("%w: it was asked for %d times, and the instance is %s (%s)", errNotYet, w.asked, server.Status, w.why)
	}
	if wait, err := w.mayEnd(ctx); wait != "" || err != nil {
		w.why = wait
		return err
	}
	log := zerolog.Ctx(ctx)
	err := w.t.Run.Cloud.HardReboot(ctx, w.t.Plan.UUID)
	log.Debug().Err(err).Str("status", server.Status).Msg("hard reboot asked for")
	switch {
	case err == nil:
		w.asked++
		w.under, w.took = true, true
		w.why = "Nova has accepted it"
	case errors.Is(err, recover.ErrTaskUnderWay):
		w.why = err.Error() // it will pass; the limit decides
	case errors.Is(err, recover.ErrCloudUnavailable):
		w.asked++ // the next look tells whether it was accepted
		w.why = err.Error()
	default:
		return err
	}
	return nil
}

// mayEnd refuses a hard reboot that would end a QEMU which holds lost files, or
// one that relies on another host's scan of long ago: files may have been deleted
// since the plan was made. wait says why that can't be told yet: the next look may.
func (w *rebootWait) mayEnd(ctx context.Context) (wait string, err error) {
	if r := w.t.Run.Plan.Options.Reboot; r.Remote {
		if age := time.Since(w.t.Run.Plan.Created); w.t.Run.Resuming && r.MaxAge > 0 && age > r.MaxAge {
			return "", fmt.Errorf("%w: the scan of its host is older than %s, and its files may be gone by now: scan that host again, "+
				"and run os-rescue reboot with that", recover.ErrRefused, age.Round(time.Second))
		}
		return "", nil
	}
	i, err := w.guest.Look(ctx)
	switch {
	case errors.Is(err, recover.ErrNoDomain):
		return "", nil
	case err != nil:
		return "", err
	}
	return mayEnd(i)
}

// mayEnd is rebootWait.mayEnd for an instance of this host, as it is now. Unknown is no
// permission: its QEMU may have deleted disks open that nobody could match, and where that
// QEMU could not be looked into it may be ending at this moment.
func mayEnd(i recover.Instance) (wait string, err error) {
	reasons := strings.Join(i.Reasons, "; ")
	switch {
	case i.State == recover.StateShutOff || i.State == recover.StateCrashed && i.PID == 0:
		return "", nil // there is no QEMU to end
	case i.Verdict == recover.VerdictUnknown && i.Process.PID == 0:
		return "what its QEMU has open can't be looked at (" + reasons + ")", nil
	case i.Verdict == recover.VerdictConflict && i.IsWhole():
		if why := i.StartsElsewhere(recover.StarterNova); why != "" {
			return "", fmt.Errorf("%w: %s; first: %s", recover.ErrRefused, why, i.CureOfNextStart())
		}
	case i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected:
		return "", fmt.Errorf("%w: its files are %s by now, and Nova would end its QEMU, which holds them: rescue it first (%s)",
			recover.ErrRefused, i.Verdict, reasons)
	}
	return "", nil
}
