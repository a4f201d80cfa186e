package hypervisor

import (
	"context"
	"slices"
	"sync"
)

// maxChanges is the number of domains that are kept for a slow receiver; when there
// are more, it has to look at all domains.
const maxChanges = 256

// changes are the changed domains that were not sent yet, each once, the first one
// first. "" stands for all domains.
type changes struct {
	mu      sync.Mutex
	domains []string
	more    chan struct{} // there are some
}

func newChanges() *changes { return &changes{more: make(chan struct{}, 1)} }

// add never waits.
func (c *changes) add(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case slices.Contains(c.domains, "") || slices.Contains(c.domains, uuid):
		return
	case uuid == "" || len(c.domains) == maxChanges:
		c.domains = []string{""}
	default:
		c.domains = append(c.domains, uuid)
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// take removes the first; ok is false when there is none.
func (c *changes) take() (uuid string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.domains) == 0 {
		return "", false
	}
	uuid = c.domains[0]
	c.domains = slices.Delete(c.domains, 0, 1)
	return uuid, true
}

// send sends every change to out until ctx ends, and then closes out.
func (c *changes) send(ctx context.Context, out chan<- string) {
	defer close(out)
	for {
		uuid, ok := c.take()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-c.more:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case out <- uuid:
		}
	}
}
