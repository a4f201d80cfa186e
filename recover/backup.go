package recover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// backupDir is the directory that a run keeps its copies in, in the layout of
// the manual way: DIR/UUID/disk, DIR/_base/SHA1, and DIR/manifest.json.
type backupDir struct {
	path string
	root *beneath.Root

	mu       sync.Mutex
	manifest Manifest
	stored   map[string]ManifestFile // by inode: a shared backing file is copied once
}

// openBackup makes the run's backup directory, or opens the one of an earlier
// run, whose instances are kept.
func (s *Session) openBackup() error {
	dir := s.plan.Options.BackupDir
	if dir == "" || s.plan.Command == CommandRestore || s.backup != nil || len(s.plan.Work()) == 0 {
		return nil
	}
	root, err := beneath.OpenRoot("/")
	if err != nil {
		return err
	}
	b := &backupDir{path: dir, root: root, stored: map[string]ManifestFile{}, manifest: Manifest{Version: manifestVersion, Host: s.e.Settings.Host, Instances: []ManifestInstance{}}}
	d, err := b.mkdir(dir)
	if err != nil {
		return fmt.Errorf("%w: the backup directory: %w", ErrUnusable, err)
	}
	d.Close()
	m, err := readManifest(dir)
	switch {
	case err == nil:
		b.manifest = m
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	s.backup = b
	return nil
}

func (b *backupDir) mkdir(path string) (*beneath.Dir, error) {
	d, _, err := b.root.MkdirAll(path, func(string) beneath.Owner { return beneath.Owner{Mode: 0o700} })
	return d, err
}

// backUp copies an instance's files into the backup directory, and lets the
// guest go on. The pins stay: what was lost still is.
func (t *task) backUp(ctx context.Context) error {
	if err := t.saveXML(ctx); err != nil {
		return err
	}
	if err := t.quiesce(ctx); err != nil {
		return err
	}
	if t.off && t.ip.Found != StateShutOff {
		return fmt.Errorf("%w: the guest ended before its backup was complete; the keeper holds what was lost: a rescue restores it", ErrRefused)
	}
	left := t.ip.Found
	if t.s.plan.Options.KeepPaused && left == StateRunning {
		left = StatePaused
	}
	if err := t.keepBackupAs(ctx, left); err != nil {
		return err
	}
	if left == StatePaused {
		t.undos = nil // --keep-paused: the guest stays as it is now
		return nil
	}
	return t.rollback(ctx)
}

// keepBackup keeps copies of a rescued instance's files, if that was asked for.
func (t *task) keepBackup(ctx context.Context) error {
	if t.s.backup == nil || t.s.plan.Command != CommandRescue {
		return nil
	}
	return t.keepBackupAs(ctx, t.ip.Found)
}

func (t *task) keepBackupAs(ctx context.Context, left DomainState) error {
	b := t.s.backup
	if kept, ok := b.entry(t.ip.UUID); ok && kept.Run == t.s.plan.Run {
		// The interrupted run came that far.
		if t.off || kept.Snapshot.unchanged(t.before) {
			return nil
		}
		if err := b.drop(kept); err != nil {
			return err
		}
	}
	entry := ManifestInstance{UUID: t.ip.UUID, Domain: t.ip.Domain, Name: t.ip.Name, ProjectID: t.ip.ProjectID, ProjectName: t.ip.ProjectName,
		Taken: time.Now().UTC(), Run: t.s.plan.Run, Found: t.ip.Found, Left: left, Snapshot: t.before, Files: []ManifestFile{}}
	if entry.Snapshot.Process.PID == 0 {
		entry.Snapshot.Process = t.ip.Process
	}
	t.stored = nil
	err := t.step(ctx, stepBackup, "", func() error {
		for _, f := range t.ip.Files {
			file, err := t.store(ctx, f)
			if err != nil {
				return err
			}
			entry.Files = append(entry.Files, file)
		}
		if !t.off {
			if err := t.stillBackedUp(ctx); err != nil {
				return err
			}
		}
		var err error
		if entry.Definition, err = t.storeXML(); err != nil {
			return err
		}
		return b.add(entry)
	})
	if _, ok := b.entry(t.ip.UUID); err != nil && !ok {
		t.stored = append(t.stored, filepath.Join(b.path, t.ip.UUID, definitionName))
		err = errors.Join(err, b.remove(t.ip.UUID, t.stored))
	}
	return err
}

// entry returns the instance's entry in the manifest.
func (b *backupDir) entry(uuid string) (ManifestInstance, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.manifest.find(uuid)
}

// names is true when the manifest names a file: it is part of a complete backup.
func (b *backupDir) names(path string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.manifest.Instances, func(i ManifestInstance) bool {
		return slices.ContainsFunc(i.Files, func(f ManifestFile) bool { return filepath.Join(b.path, f.Stored) == path })
	})
}

// drop takes an instance out of the manifest and removes its own files: the
// guest has written since, and they are made anew.
func (b *backupDir) drop(entry ManifestInstance) error {
	b.mu.Lock()
	next := b.manifest
	next.Instances = slices.DeleteFunc(slices.Clone(next.Instances), func(i ManifestInstance) bool { return i.UUID == entry.UUID })
	err := b.write(next)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	paths := []string{filepath.Join(b.path, entry.UUID, definitionName)}
	for _, f := range entry.Files {
		if f.Role != RoleBacking {
			paths = append(paths, filepath.Join(b.path, f.Stored))
		}
	}
	return b.remove(entry.UUID, paths)
}

// remove removes the files of a backup that was not completed, which this run
// made, and the instance's directory if nothing else is in it.
func (b *backupDir) remove(uuid string, paths []string) error {
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

// stillBackedUp makes sure that the guest was quiet all the time it was copied.
func (t *task) stillBackedUp(ctx context.Context) error {
	if t.before.Counters == nil {
		return nil // only files that it does not write were copied
	}
	err := t.stillQuiet(ctx)
	if err == nil && t.off {
		err = fmt.Errorf("%w: the guest was ended while its files were copied for the backup", ErrUnproven)
	}
	return err
}

// add puts an instance into the manifest, which is complete at any moment.
func (b *backupDir) add(i ManifestInstance) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.manifest
	next.Instances = append(append([]ManifestInstance{}, next.Instances...), i)
	return b.write(next)
}

func (b *backupDir) write(m Manifest) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = writeFile(filepath.Join(b.path, manifestName), append(data, '\n'))
	}
	if err == nil {
		b.manifest = m
	}
	return err
}

// store copies one file into the backup, proves it, and returns its entry.
func (t *task) store(ctx context.Context, f FilePlan) (ManifestFile, error) {
	b := t.s.backup
	entry := ManifestFile{Path: f.Path, Stored: storedName(f.Path, t.s.e.Settings.InstancesPath), Role: f.Role, Format: f.Format, Target: f.Target,
		Backing: f.Backing, Size: f.Size, Allocated: f.Allocated, UID: f.UID, GID: f.GID, Mode: f.Mode, Writable: f.Writable}
	if f.Role != RoleBacking {
		err := t.storeFile(ctx, f, &entry)
		return entry, err
	}
	err := t.s.shared.once("backup:"+f.Key(), func() error {
		err := t.storeFile(ctx, f, &entry)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.stored[f.Key()] = entry
		return err
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stored[f.Key()], err
}

func (t *task) storeFile(ctx context.Context, f FilePlan, entry *ManifestFile) error {
	path := filepath.Join(t.s.backup.path, entry.Stored)
	if t.s.storedBefore(path) && !t.s.backup.names(path) {
		// Begun by the interrupted run, and not in the manifest.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return t.step(ctx, stepStore, path, func() error { return t.storeProven(ctx, f, path, entry) })
}

func (t *task) storeProven(ctx context.Context, f FilePlan, path string, entry *ManifestFile) (err error) {
	b := t.s.backup
	dir, err := b.mkdir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(path)
	var src copier.Source
	if f.Content == "" {
		if src, err = t.s.source(ctx, f); err != nil {
			return t.copyError(f, err)
		}
	}
	file, err := dir.Create(name)
	if errors.Is(err, fs.ErrExist) && f.Role == RoleBacking {
		return t.storedBefore(ctx, f, dir, name, src, entry)
	}
	if err != nil {
		return fmt.Errorf("back up %s: %w", f.Path, err)
	}
	if f.Role != RoleBacking {
		t.stored = append(t.stored, path)
	}
	defer file.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Remove(name))
		}
	}()
	staged := &stagedFile{plan: f, file: file}
	if f.Content != "" {
		if err := writeContent(file, f.Content); err != nil {
			return t.copyError(f, err)
		}
		if src, err = openStored(path); err != nil {
			return err
		}
		defer src.File.Close()
	} else if err := t.copyFile(ctx, staged, src, &stagedRecord{}); err != nil {
		return t.copyError(f, err)
	}
	if err := staged.measure(); err != nil {
		return err
	}
	entry.Size = staged.size
	if f.Role == RoleConsoleLog {
		if err := samePrefix(file, src.File, staged.size); err != nil {
			return err
		}
		src = copier.Source{File: file}
	}
	if entry.SHA256, err = t.digest(ctx, f, file, src); err != nil {
		return err
	}
	if err := t.check(ctx, staged); err != nil {
		return err
	}
	return dir.Sync()
}

// digest compares a stored copy with its source in full, and returns the digest
// of both.
func (t *task) digest(ctx context.Context, f FilePlan, file *os.File, src copier.Source) (string, error) {
	show := t.s.e.Progress.File(t.subject(), f.Path, stepCompare, f.Size)
	defer show.Done()
	digest, err := copier.Compare(ctx, src, file, copier.CompareOptions{Digest: true, Progress: show.Add})
	if errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return digest, err
}

// storedBefore takes a backing file for good that an earlier run has stored, if
// it is the same.
func (t *task) storedBefore(ctx context.Context, f FilePlan, dir *beneath.Dir, name string, src copier.Source, entry *ManifestFile) error {
	file, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	if entry.SHA256, err = t.digest(ctx, f, file, src); err != nil {
		return fmt.Errorf("%w: %s/%s is in the backup already, and is not the same: %w", ErrConflict, dir.Path(), name, err)
	}
	return nil
}

// storeXML keeps the domain's definition beside its files.
func (t *task) storeXML() (string, error) {
	xml, err := t.savedXML()
	if err != nil {
		return "", err
	}
	name := filepath.Join(t.ip.UUID, definitionName)
	dir, err := t.s.backup.mkdir(filepath.Join(t.s.backup.path, t.ip.UUID))
	if err != nil {
		return "", err
	}
	dir.Close()
	return name, writeFile(filepath.Join(t.s.backup.path, name), []byte(xml))
}
