package guard

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/os-rescue/os-rescue/recover"
)

// staleDomains are the domains whose definition may have changed since it was read.
// It is safe for concurrent use.
type staleDomains struct {
	mu    sync.Mutex
	all   bool
	uuids map[string]bool
}

// newStaleDomains begins with every domain.
func newStaleDomains() *staleDomains { return &staleDomains{all: true, uuids: map[string]bool{}} }

// add adds a domain, or with "" every domain.
func (s *staleDomains) add(uuid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uuid == "" {
		s.all = true
		return
	}
	s.uuids[uuid] = true
}

// take returns the domains that are stale, and takes them for read: what changes
// from now on is stale again.
func (s *staleDomains) take() takenDomains {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := takenDomains{all: s.all, uuids: s.uuids}
	s.all, s.uuids = false, map[string]bool{}
	return taken
}

// giveBack makes domains stale again that were taken and not read.
func (s *staleDomains) giveBack(taken takenDomains) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = s.all || taken.all
	maps.Copy(s.uuids, taken.uuids)
}

// takenDomains are domains whose definitions one scan has to read.
type takenDomains struct {
	all   bool
	uuids map[string]bool
}

func (t takenDomains) has(uuid string) bool { return t.all || t.uuids[uuid] }

// follow notes the domains that change, and calls onDomain and onChange for each. While libvirt's
// events can't be had, it tries again in intervals.
func (s *staleDomains) follow(ctx context.Context, hypervisor recover.Hypervisor, problems *problems, options func() Options,
	onDomain func(ctx context.Context, uuid string), onChange func(),
) {
	for ctx.Err() == nil {
		events, err := hypervisor.Events(ctx)
		if err != nil {
			problems.set("events", fmt.Errorf("libvirt's events can't be received, so domains are looked at only every %s: %w",
				options().interval(), err))
			recover.Pause(ctx, DefaultInterval)
			continue
		}
		problems.set("events", nil)
		s.add("") // what changed before the subscription is not told
		onChange()
		for uuid := range events {
			s.add(uuid)
			if uuid != "" {
				onDomain(ctx, uuid)
			}
			onChange()
		}
	}
}
