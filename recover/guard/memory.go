package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// heldFiles is the content of holds.json: what the guard knows of each file that it
// holds, for its next life. Inode numbers of deleted files mean something only
// until the next boot.
type heldFiles struct {
	// Version is 1 since holds say whether they were opened.
	Version int          `json:"version,omitempty"`
	BootID  string       `json:"boot_id"`
	Host    string       `json:"host,omitempty"` // a name under which Nova had instances here
	Holds   []holdMemory `json:"holds"`
}

// memory is holds.json. It is safe for concurrent use.
type memory struct {
	dir inventory.Dir

	mu   sync.Mutex // held while the file is written
	host string     // what the file says
}

func newMemory(dir inventory.Dir) *memory { return &memory{dir: dir} }

// load returns what an earlier life of the guard knew: its files by inode, of
// which nothing is left after a reboot of the host, and the host's name in Nova.
func (m *memory) load() (holds map[recover.Inode]holdMemory, host string, err error) {
	holds = map[recover.Inode]holdMemory{}
	data, err := m.dir.ReadHolds()
	if errors.Is(err, fs.ErrNotExist) {
		return holds, "", nil
	}
	var held heldFiles
	if err == nil {
		held, err = parseHeldFiles(data)
	}
	if err != nil {
		return holds, "", fmt.Errorf("the list of the files that an earlier guard held (%s) can't be read: %w", m.dir.HoldsFile(), err)
	}
	if boot, err := procfs.BootID(procfs.Dir); err != nil || boot != held.BootID {
		return holds, held.Host, err
	}
	for _, h := range held.Holds {
		holds[h.inode()] = h
	}
	return holds, held.Host, nil
}

func parseHeldFiles(data []byte) (heldFiles, error) {
	var held heldFiles
	err := json.Unmarshal(data, &held)
	if held.Version == 0 { // a needed file that no definition names was one that its QEMU had open
		for n := range held.Holds {
			held.Holds[n].Opened = held.Holds[n].Opened || held.Holds[n].Needed
		}
	}
	return held, err
}

// save brings the list of held files and the host's name to the disk, if they have
// changed since the last save.
func (m *memory) save(h *holdings, knownHost func() string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	host := knownHost() // under the lock: an older save must not write an older name last
	holds, changed := h.toSave()
	if !changed && host == m.host {
		return nil
	}
	if err := m.write(heldFiles{Version: 1, Host: host, Holds: holds}); err != nil {
		h.notSaved()
		return err
	}
	m.host = host
	return nil
}

func (m *memory) write(held heldFiles) error {
	var err error
	if held.BootID, err = procfs.BootID(procfs.Dir); err != nil {
		return err
	}
	data, err := json.Marshal(held)
	if err != nil {
		return err
	}
	return statedir.WriteFile(m.dir.HoldsFile(), data)
}

// toSave returns what outlives the process of every hold, and whether it has changed
// since it was last called.
func (h *holdings) toSave() (holds []holdMemory, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	holds = []holdMemory{}
	for _, hold := range h.files {
		holds = append(holds, hold.holdMemory.copy())
	}
	changed, h.changed = h.changed, false
	return holds, changed
}

// notSaved says that toSave's result did not come to the disk.
func (h *holdings) notSaved() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed = true
}
