package guest

import (
	"context"
	"errors"
	"fmt"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// SaveDefinition keeps the domain's definition (libvirt's XML) with the run: a start
// needs it when libvirt has forgotten the domain by then. A domain that libvirt does not
// know and of which nobody else has a definition is no error.
func (g *Guest) SaveDefinition(ctx context.Context) error {
	t := g.t
	xml, err := t.Run.Hypervisor.XML(ctx, t.Plan.UUID)
	if errors.Is(err, recover.ErrNoDomain) {
		if xml, err = g.storedDefinition(); err == nil && xml == "" {
			return nil
		}
	}
	if err == nil {
		err = statedir.WriteFile(t.Run.StateDir.Definition(t.Run.Plan.Run, t.Plan.UUID), []byte(xml))
	}
	if err != nil {
		return fmt.Errorf("save the domain's definition: %w", err)
	}
	return nil
}

// maxDefinition is more than the largest definition that libvirt takes, in bytes.
const maxDefinition = 16 << 20

// SavedDefinition returns what SaveDefinition has kept. fs.ErrNotExist when that is
// nothing.
func (g *Guest) SavedDefinition() (string, error) {
	path := g.t.Run.StateDir.Definition(g.t.Run.Plan.Run, g.t.Plan.UUID)
	data, err := plainfile.Read(path, plainfile.Rules{Most: maxDefinition, Ours: true})
	if err != nil {
		return "", fmt.Errorf("libvirt has forgotten the domain, and its definition was not saved: %w", err)
	}
	return string(data), nil
}
