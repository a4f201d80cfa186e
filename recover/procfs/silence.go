package procfs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
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
	// mostThreads is how many threads of this process may wait for such things for ever: a service may
	// have a few hundred tasks (TasksMax).
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

// manyWait is true when so many threads of this process wait for a file's status, or for memory, that no
// other may come to hang. A thread is a directory there, beside "." and ".." (fs/proc/base.c,
// proc_task_getattr), and says which system call it waits in (proc_pid_syscall(5)).
func manyWait() (bool, error) {
	const tasks = Dir + "/self/task"
	st, err := identity.At(unix.AT_FDCWD, tasks, 0)
	if err != nil || st.Nlink <= mostThreads+2 {
		return false, err
	}
	ids, err := All(tasks)
	if err != nil {
		return false, err
	}
	waiting := 0
	for _, id := range ids {
		call, err := readProc(tasks + "/" + strconv.Itoa(id) + "/syscall")
		number, _, _ := strings.Cut(string(call), " ")
		if err == nil && (number == strconv.Itoa(unix.SYS_STATX) || number == strconv.Itoa(unix.SYS_READ)) {
			waiting++
		}
	}
	return waiting > mostThreads, nil
}
