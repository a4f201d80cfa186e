package ground

import (
	"os"
	"path/filepath"
)

// EmptyDir removes all that is in a directory, and leaves the directory. The error wraps
// fs.ErrNotExist when there is none.
func EmptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
