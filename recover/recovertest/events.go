package recovertest

import (
	"context"
	"slices"
	"sync"
)

// changes are the domains that a listener was not told of yet, each once.
type changes struct {
	mu      sync.Mutex
	domains []string
	more    chan struct{}
}

func (c *changes) add(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.domains, "") || slices.Contains(c.domains, uuid) {
		return
	}
	if uuid == "" {
		c.domains = nil
	}
	c.domains = append(c.domains, uuid)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *changes) take() (uuid string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.domains) == 0 {
		return "", false
	}
	uuid = c.domains[0]
	c.domains = c.domains[1:]
	return uuid, true
}

// tell is called with the lock held.
func (v *FakeHypervisor) tell(uuid string) {
	if v.Quiet {
		return
	}
	for l := range v.listeners {
		l.add(uuid)
	}
}

// Events tells of what happens, and what is sent to v.Sent, until ctx ends.
func (v *FakeHypervisor) Events(ctx context.Context) (<-chan string, error) {
	if err := v.enter(ctx, "events", ""); err != nil {
		return nil, err
	}
	l := &changes{more: make(chan struct{}, 1)}
	v.Mu.Lock()
	v.listeners[l] = true
	sent := v.Sent
	v.Mu.Unlock()
	out := make(chan string)
	go func() {
		defer close(out)
		defer func() {
			v.Mu.Lock()
			defer v.Mu.Unlock()
			delete(v.listeners, l)
		}()
		for {
			uuid, ok := l.take()
			if !ok {
				select {
				case <-ctx.Done():
					return
				case <-l.more:
					continue
				case uuid = <-sent:
				}
			}
			select {
			case <-ctx.Done():
				return
			case out <- uuid:
			}
		}
	}()
	return out, nil
}
