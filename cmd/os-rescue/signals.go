package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// stopSignals returns the channel of the signals that stop a run. A signal that is
// already ignored, as SIGHUP under nohup, stays ignored.
func stopSignals() <-chan os.Signal {
	ch := make(chan os.Signal, 16)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(ch, s)
		}
	}
	return ch
}

// stoppedBy is the cause of a context's end: the signal. errors.Is finds
// context.Canceled in it.
type stoppedBy struct{ name string }

func (s stoppedBy) Error() string { return "stopped by " + s.name }

func (s stoppedBy) Is(target error) bool { return target == context.Canceled }

// stopOnSignal returns a context that ends at the first signal. It acknowledges that
// signal and every further one on w. If daemon returns a function, SIGHUP calls that
// function and ends nothing, and nothing is written to w. The function that
// stopOnSignal returns ends the listening.
func stopOnSignal(parent context.Context, signals <-chan os.Signal, w io.Writer, daemon func() (reload func())) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; ; n++ {
			select {
			case s := <-signals:
				name := unix.SignalName(s.(unix.Signal))
				reload := daemon()
				switch {
				case reload != nil && s == unix.SIGHUP:
					reload()
					n--
					continue
				case reload != nil:
				case n == 1:
					_, _ = fmt.Fprintf(w, "os-rescue: stopping: %s. "+
						"Work that can't be interrupted is finished, everything else is put back as it was found\n", name)
				default:
					_, _ = fmt.Fprintf(w, "os-rescue: still finishing work that can't be interrupted (signal %d: %s)\n", n, name)
				}
				cancel(stoppedBy{name})
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		close(done)
		<-ended
		cancel(errors.New("ended"))
	}
}
