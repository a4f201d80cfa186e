package recovertest

import (
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
