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
	silence = 4 * time.Second
	// mostThreads is how many threads this process may have, where some wait for such things for
	// ever, before no more may: a service may have a few hundred tasks (TasksMax).
	mostThreads = 100
)

// looker is somebody who looks at what may not answer.
type looker interface {
	name() string    // what is looked at
	progress() int64 // a number that goes up
}

// answered returns what look does, or an error that wraps ErrSilent once that has stood still for the limit:
// the thread that hangs there can't be called back. look must not use what its caller closes.
func answered[T any](ctx context.Context, limit time.Duration, l looker, look func(context.Context) (T, error)) (T, error) {
	type result struct {
		of  T
		err error
	}
	var none T
	ended := make(chan result, 1)
	go func() {
		of, err := look(ctx)
		ended <- result{of, err}
	}()
	ticker := time.NewTicker(limit)
	defer ticker.Stop()
	for last := int64(0); ; {
		select {
		case r := <-ended:
			return r.of, r.err
		case <-ctx.Done():
			return none, ctx.Err()
		case <-ticker.C:
			now := l.progress()
			if now == last {
				return none, fmt.Errorf("%s: %w", l.name(), ErrSilent)
			}
			last = now
		}
	}
}

// manyWait is true when this process has so many threads that no other may hang: each is a directory
// there, beside "." and ".." (fs/proc/base.c, proc_task_getattr).
func manyWait() (bool, error) {
	st, err := identity.At(unix.AT_FDCWD, Dir+"/self/task", 0)
	return st.Nlink > mostThreads+2, err
}
