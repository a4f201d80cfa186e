package recover

import (
	"encoding/json"
	"fmt"
	"os"
)

// writeLock says who holds the host's lock.
func writeLock(f *os.File, info lockInfo) error {
	data, err := json.Marshal(info)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(data, '\n'), 0)
	}
	if err != nil {
		return fmt.Errorf("%w: the lock of the host's runs: %w", ErrUnusable, err)
	}
	return nil
}

// commandUndo is what the host's lock is held for while a killed run is undone.
const commandUndo Command = "undo"
