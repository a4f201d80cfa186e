package hypervisor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// Defaults of Options.
const (
	defaultURI      = "qemu:///system"
	defaultRunDir   = "/run/libvirt/qemu"
	defaultRetryFor = 60 * time.Second
)

// Options select the libvirt to connect to.
type Options struct {
	URI      string        // libvirt's connection URI; qemu:///system when empty
	RunDir   string        // directory in which libvirt's QEMU driver keeps NAME.pid; /run/libvirt/qemu when empty
	RetryFor time.Duration // limit for reopening a broken connection; 60 s when 0
	// Lazy connects at the first call: for a daemon, which must start without libvirt
	// too.
	Lazy bool
}

// Client is one host's libvirt. It is safe for concurrent use. Its methods are those
// of the parts that it embeds; all parts share its connections.
type Client struct {
	*connections

	reader
	lifecycle
	agent
	starts
	mirrors
	exports
	events
}

var _ recover.Hypervisor = (*Client)(nil)

// Open connects to libvirt once, without a retry, or not at all with Options.Lazy.
// The process must have called StartEventLoop before. The error wraps
// recover.ErrUnavailable when libvirt can't be reached in 15 s. The caller closes the
// Client.
func Open(ctx context.Context, opts Options) (*Client, error) {
	c := newConnections(cmp.Or(opts.URI, defaultURI), cmp.Or(opts.RetryFor, defaultRetryFor))
	run := runDir(cmp.Or(opts.RunDir, defaultRunDir))
	client := &Client{
		connections: c,
		reader:      reader{c, run},
		lifecycle:   lifecycle{c, run},
		agent:       agent{c},
		starts:      starts{c, run},
		mirrors:     mirrors{c},
		exports:     exports{c, run},
		events:      events{c},
	}
	if opts.Lazy {
		return client, nil
	}
	conn, err := c.take(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connecting to %s: %w", c.shownURI, context.Cause(ctx))
		}
		return nil, unavailable(c.shownURI, err)
	}
	c.put(conn)
	return client, nil
}
