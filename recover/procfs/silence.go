package procfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

// ErrSilent: what a process has open, or as its memory, is on something that does not answer: a
// dead server, say.
var ErrSilent = errors.New("it does not answer")

const (
	// silence is how long such a thing may take.
	silence = 10 * time.Second
	// mostThreads is how many threads may wait for such things, each forever.
	mostThreads = 500
)

// answered returns what look does, or an error that wraps ErrSilent and names what was looked at: the
// thread that hangs there can't be called back. look must not use what its caller closes.
func answered[T any](ctx context.Context, limit time.Duration, what func() string, look func(context.Context) (T, error)) (T, error) {
	type result struct {
		of  T
		err error
	}
	var none T
	if n, err := threads(); err != nil {
		return none, err
	} else if n > mostThreads {
		return none, fmt.Errorf("%s: %w, as others: %d threads of this process wait already", what(), ErrSilent, n)
	}
	ended := make(chan result, 1)
	go func() {
		of, err := look(ctx)
		ended <- result{of, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-ended:
		return r.of, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timer.C:
		return none, fmt.Errorf("%s: %w", what(), ErrSilent)
	}
}

// threads is how many threads this process has: each is a directory, beside "." and ".."
// (fs/proc/base.c, proc_task_getattr).
func threads() (int, error) {
	st, err := identity.At(unix.AT_FDCWD, Dir+"/self/task", 0)
	return int(st.Nlink) - 2, err
}
