package recover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// heldFiles is what holds.json says: what the guard knows of each file that it
// holds, for its next life. Inode numbers of deleted files mean something only
// until the next boot.
type heldFiles struct {
	BootID string       `json:"boot_id"`
	Host   string       `json:"host,omitempty"` // a name under which Nova had instances here
	Holds  []holdMemory `json:"holds"`
}

// loadHolds reads what an earlier life of the guard knew: its files by inode, of
// which nothing is left after a reboot of the host, and the host's name in Nova.
func (s stateDir) loadHolds() (memory map[inode]holdMemory, host string, err error) {
	memory = map[inode]holdMemory{}
	data, err := os.ReadFile(s.guardHolds())
	if errors.Is(err, fs.ErrNotExist) {
		return memory, "", nil
	}
	var held heldFiles
	if err == nil {
		held, err = parseHeldFiles(data)
	}
	if err != nil {
		return memory, "", fmt.Errorf("what an earlier guard knew of its files (%s) can't be read: %w", s.guardHolds(), err)
	}
	if boot, err := bootID(procDir); err != nil || boot != held.BootID {
		return memory, held.Host, err
	}
	for _, m := range held.Holds {
		memory[inode{m.Device, m.Inode}] = m
	}
	return memory, held.Host, nil
}

func parseHeldFiles(data []byte) (heldFiles, error) {
	var held heldFiles
	err := json.Unmarshal(data, &held)
	return held, err
}

// save brings what is known of the held files to the disk, when it has changed.
func (g *Guard) save() error {
	g.saving.Lock()
	defer g.saving.Unlock()
	held := heldFiles{Holds: []holdMemory{}}
	g.mu.Lock()
	held.Host = g.host
	g.mu.Unlock()
	g.holds.mu.Lock()
	changed := g.holds.changed || held.Host != g.savedHost
	g.holds.changed = false
	for _, h := range g.holds.files {
		held.Holds = append(held.Holds, h.copy().holdMemory)
	}
	g.holds.mu.Unlock()
	if !changed {
		return nil
	}
	var err error
	if held.BootID, err = bootID(procDir); err == nil {
		var data []byte
		if data, err = json.Marshal(held); err == nil {
			err = writeFile(g.state.guardHolds(), data)
		}
	}
	if err != nil {
		g.holds.mu.Lock()
		g.holds.changed = true
		g.holds.mu.Unlock()
		return err
	}
	g.savedHost = held.Host
	return nil
}

// giveTo gives one held file to the keeper, for each of its owners.
func giveTo(ctx context.Context, c *keeper.Client, h guardHold) error {
	meta, err := json.Marshal(h.meta())
	if err != nil {
		return err
	}
	for _, owner := range h.Owners {
		if err := c.Hold(ctx, owner, h.inode().Key(), meta, h.file); err != nil {
			return fmt.Errorf("%s is held by its QEMU alone, if that lives: %w", h.Path, err)
		}
	}
	return nil
}

// takeBack has the keeper let go what the guard gave it at its end and holds
// itself again: two holders would keep the room of a file that one lets go.
func (g *Guard) takeBack(ctx context.Context) error {
	c, err := keeper.Connect(ctx, g.e.Settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	holds, err := c.List(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		var meta pinMeta
		if json.Unmarshal(h.Meta, &meta) != nil || meta.Run != guardRun {
			continue
		}
		for _, owner := range h.Owners {
			if _, err := g.holds.Open(h.Key); err == nil {
				err = c.Release(ctx, owner, h.Key)
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}
