package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/manifest"
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

// drop takes an instance out of the manifest and removes the files that a run stored of it, which
// are those at paths: the guest has written since, and they are made anew.
func (b *Dir) drop(uuid string, paths []string) error {
	b.mu.Lock()
	next := b.manifest
	next.Instances = slices.DeleteFunc(slices.Clone(next.Instances), func(i manifest.Instance) bool { return i.UUID == uuid })
	err := b.write(next)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return b.remove(uuid, paths)
}

// remove removes the files of a backup that was not completed, which this run made, the
// instance's definition, and its directory if nothing else is in it. A path comes from the run's
// own records, never from the manifest. What is reached through a symlink stays:
// beneath.ErrSymlink.
func (b *Dir) remove(uuid string, paths []string) error {
	var errs error
	for _, path := range append(slices.Clone(paths), filepath.Join(b.path, uuid, manifest.DefinitionName)) {
		errs = errors.Join(errs, b.removeFile(path))
	}
	err := b.removeAt(filepath.Join(b.path, uuid), (*beneath.Dir).RemoveDir)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = nil
	}
	return errors.Join(errs, err)
}

// removeFile removes one file, if it is there. beneath.ErrSymlink as from remove.
func (b *Dir) removeFile(path string) error { return b.removeAt(path, (*beneath.Dir).Remove) }

// removeAt removes what has that path. Whose word is accepted can put a symlink in place of any
// directory on the way.
func (b *Dir) removeAt(path string, remove func(*beneath.Dir, string) error) error {
	if !recover.IsBelow(path, b.path) {
		return &fs.PathError{Op: "remove", Path: path, Err: fmt.Errorf("%w: it is not in the backup directory", fs.ErrInvalid)}
	}
	dir, err := b.root.OpenDir(filepath.Dir(path))
	if err == nil {
		err = remove(dir, filepath.Base(path))
		dir.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
	if err != nil {
		return err
	}
	dir, err := b.root.OpenDir(b.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err = beneath.Write(dir, manifest.FileName, append(data, '\n')); err == nil {
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
