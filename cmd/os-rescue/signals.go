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

// stopSignals returns the channel of the signals that stop a run. One that is
// ignored already, as nohup does with SIGHUP, stays ignored.
func stopSignals() <-chan os.Signal {
	ch := make(chan os.Signal, 16)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(ch, s)
		}
	}
	return ch
}

// stoppedBy is why a context ended. It is context.Canceled to those who ask.
type stoppedBy struct{ name string }

func (s stoppedBy) Error() string { return "stopped by " + s.name }

func (s stoppedBy) Is(target error) bool { return target == context.Canceled }

// stopOnSignal returns a context that ends at the first signal. It says on w
// that it was heard, and at every further one that it still is being finished.
// daemon returns what a SIGHUP means instead, and then nothing is said on w; nil
// where it is to stop.
// The function returned ends the listening.
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
					_, _ = fmt.Fprintf(w, "os-rescue: stopping: %s. What can't be interrupted is finished, the rest is put back as it was found\n", name)
				default:
					_, _ = fmt.Fprintf(w, "os-rescue: still finishing what can't be interrupted (signal %d: %s)\n", n, name)
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
