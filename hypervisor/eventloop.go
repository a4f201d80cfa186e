package hypervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"libvirt.org/go/libvirt"
)

// eventLoopTick is the interval at which the loop wakes up to check its context.
const eventLoopTick = time.Second

// StartEventLoop registers libvirt's own event loop and runs it until ctx ends.
// It is called once in a process, before Open: libvirt allows one loop per
// process (https://libvirt.org/html/libvirt-libvirt-event.html). The loop
// carries the keepalive of every connection, in both directions, so ctx must
// outlive every Client: the context of main, not one that Ctrl-C ends.
func StartEventLoop(ctx context.Context) error {
	if err := libvirt.EventRegisterDefaultImpl(); err != nil {
		return fmt.Errorf("registering libvirt's event loop: %w", err)
	}
	// A timer that does nothing bounds the loop's sleep.
	timer, err := libvirt.EventAddTimeout(int(eventLoopTick.Milliseconds()), func(int) {})
	if err != nil {
		return fmt.Errorf("adding a timer to libvirt's event loop: %w", err)
	}
	go func() {
		for ctx.Err() == nil {
			if err := libvirt.EventRunDefaultImpl(); err != nil {
				zerolog.Ctx(ctx).Error().Err(err).Msg("libvirt's event loop stopped: a daemon that hangs will not be noticed")
				return
			}
		}
		_ = libvirt.EventRemoveTimeout(timer)
	}()
	return nil
}
