package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Dir is the directory that a run keeps its copies in, in the layout of the manual way:
// DIR/UUID/disk, DIR/_base/SHA1, and DIR/manifest.json. It is safe for concurrent use.
type Dir struct {
	path string
	root *beneath.Root

	mu       sync.Mutex
	manifest manifest.Manifest
	stored   map[string]manifest.File // by inode: a shared backing file is copied once
}

// OpenDir makes the backup directory of a run, or opens the one of an earlier run, whose
// instances stay in it. owner is as in manifest.Open, and host this host's name, for the
// manifest. recover.ErrUnusable when the directory can't be made or opened, and what
// manifest.Read returns.
func OpenDir(path, owner, host string) (*Dir, error) {
	root, err := beneath.OpenRoot("/")
	if err != nil {
		return nil, err
	}
	b := &Dir{
		path:     path,
		root:     root,
		manifest: manifest.Manifest{Version: manifest.Version, Host: host, Instances: []manifest.Instance{}},
		stored:   map[string]manifest.File{},
	}
	d, err := b.mkdir(path)
	if err != nil {
		return nil, fmt.Errorf("%w: the backup directory: %w", recover.ErrUnusable, err)
	}
	d.Close()
	m, err := manifest.Read(path, owner)
	switch {
	case err == nil:
		b.manifest = m
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return b, nil
}

func (b *Dir) mkdir(path string) (*beneath.Dir, error) {
	d, _, err := b.root.MkdirAll(path, func(string) beneath.Owner { return beneath.Owner{Mode: 0o700} })
	return d, err
}

// entry returns the instance's entry in the manifest.
func (b *Dir) entry(uuid string) (manifest.Instance, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.manifest.Find(uuid)
}

// names is true when the manifest names a file: it is part of a complete backup.
func (b *Dir) names(path string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.manifest.Instances, func(i manifest.Instance) bool {
		return slices.ContainsFunc(i.Files, func(f manifest.File) bool { return filepath.Join(b.path, f.Stored) == path })
	})
}

// drop takes an instance out of the manifest and removes its own files: the
// guest has written since, and they are made anew.
func (b *Dir) drop(entry manifest.Instance) error {
	b.mu.Lock()
	next := b.manifest
	next.Instances = slices.DeleteFunc(slices.Clone(next.Instances), func(i manifest.Instance) bool { return i.UUID == entry.UUID })
	err := b.write(next)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	paths := []string{filepath.Join(b.path, entry.UUID, manifest.DefinitionName)}
	for _, f := range entry.Files {
		if f.Role != recover.RoleBacking {
			paths = append(paths, filepath.Join(b.path, f.Stored))
		}
	}
	return b.remove(entry.UUID, paths)
}

// remove removes the files of a backup that was not completed, which this run
// made, and the instance's directory if nothing else is in it.
func (b *Dir) remove(uuid string, paths []string) error {
	var errs error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
	}
	err := os.Remove(filepath.Join(b.path, uuid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		err = nil
	}
	return errors.Join(errs, err)
}

// add puts an instance into the manifest, which is complete at any moment.
func (b *Dir) add(i manifest.Instance) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.manifest
	next.Instances = append(append([]manifest.Instance{}, next.Instances...), i)
	return b.write(next)
}

func (b *Dir) write(m manifest.Manifest) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = statedir.WriteFile(filepath.Join(b.path, manifest.FileName), append(data, '\n'))
	}
	if err == nil {
		b.manifest = m
	}
	return err
}

// noteShared notes what was stored of an inode that several instances share.
func (b *Dir) noteShared(key string, entry manifest.File) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stored[key] = entry
}

// shared returns what noteShared has noted.
func (b *Dir) shared(key string) manifest.File {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stored[key]
}
