package pin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// GuardFault says that a guard runs, and that not all it holds is known: it does not answer, or
// what it says is not so. Nobody needs a guard for a rescue: what QEMU and the keeper hold is
// known without.
type GuardFault struct {
	PID int // of the guard's process; 0 when that is not known either
	Err error
}

// Error says also what that means, and what helps.
func (f *GuardFault) Error() string {
	who := "the guard"
	if f.PID != 0 {
		who = fmt.Sprintf("the guard (process %d)", f.PID)
	}
	return fmt.Sprintf("%s is at fault: %v. What QEMU and the keeper hold counts without it; what it alone holds is not seen. "+
		"If it is stopped, kill -CONT wakes it; restarted as a service (systemctl restart os-rescue-guard) it has its files again", who, f.Err)
}

// Unwrap is part of errors.Is.
func (f *GuardFault) Unwrap() error { return f.Err }

// changeTime is how long a guard's list may differ from what it has open, in which something
// was let go.
const changeTime = 200 * time.Millisecond

// askShare is the part of what a context leaves that a guard may take for its answer: a third. The
// scan that asks it has to come to its end without it, too.
const askShare = 3

// failedGuard is the key under which a context has how the guard failed.
type failedGuard struct{}

// WithoutGuard returns a context with which a function of Lister does not ask the guard: it was
// asked before, for something else, and failed with why.
func WithoutGuard(ctx context.Context, why error) context.Context {
	return context.WithValue(ctx, failedGuard{}, why)
}

// asker asks a host's guard what it holds. It is safe for concurrent use.
type asker struct {
	stateDir string

	mu     sync.Mutex
	silent *GuardFault // of a guard that did not answer; it is not asked again
}

// ask returns what the guard holds; nothing when none runs. The error is a *GuardFault, or the
// context's.
func (a *asker) ask(ctx context.Context) ([]Held, error) {
	if why, ok := ctx.Value(failedGuard{}).(error); ok {
		return nil, a.faultOf(ctx, why)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.silent != nil {
		return nil, a.silent
	}
	asking := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, time.Until(end)/askShare)
		defer cancel()
	}
	pins, err := a.askAgain(asking)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil {
		return pins, nil
	}
	if asking.Err() != nil {
		err = fmt.Errorf("%w in the time that there is: %w", keeper.ErrSilent, err)
	}
	fault := a.faultOf(ctx, err)
	if errors.Is(err, keeper.ErrSilent) {
		a.silent = fault
	}
	return pins, fault
}

func (a *asker) faultOf(ctx context.Context, err error) *GuardFault {
	return &GuardFault{PID: keeper.GuardPID(ctx, a.stateDir), Err: err}
}

// askAgain asks once more when the first answer could not be proven.
func (a *asker) askAgain(ctx context.Context) ([]Held, error) {
	var pins []Held
	unproven := 0
	err := keeper.AskGuard(ctx, a.stateDir, func(c *keeper.Client) (err error) {
		pins, unproven, err = pinsOf(ctx, c, guardName)
		if err == nil && unproven > 0 {
			recover.Pause(ctx, changeTime)
			pins, unproven, err = pinsOf(ctx, c, guardName)
		}
		return err
	})
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil, nil
	}
	if err == nil && unproven > 0 {
		err = fmt.Errorf("it says that it holds %d files which it does not have open", unproven)
	}
	return pins, err
}
