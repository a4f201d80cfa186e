package recover

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// saveDefinition keeps the domain's definition with the run. A start may need it
// when libvirt has forgotten the domain.
func (g *guest) saveDefinition(ctx context.Context) error {
	t := g.t
	xml, err := t.run.hypervisor.XML(ctx, t.plan.UUID)
	if errors.Is(err, ErrNoDomain) {
		if xml, err = g.storedDefinition(); err == nil && xml == "" {
			return nil
		}
	}
	if err == nil {
		err = writeFile(t.run.stateDir.xml(t.run.plan.Run, t.plan.UUID), []byte(xml))
	}
	if err != nil {
		return fmt.Errorf("save the domain's definition: %w", err)
	}
	return nil
}

// savedDefinition returns what saveDefinition has kept.
func (g *guest) savedDefinition() (string, error) {
	data, err := os.ReadFile(g.t.run.stateDir.xml(g.t.run.plan.Run, g.t.plan.UUID))
	if err != nil {
		return "", fmt.Errorf("libvirt has forgotten the domain, and its definition was not saved: %w", err)
	}
	return string(data), nil
}
