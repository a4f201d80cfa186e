package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// backup is the copies of one instance's files in the run's backup directory.
type backup struct {
	t     *task
	guest *guest
	dir   *backupDir  // nil when the run keeps no backup
	once  *oncePerRun // the run's

	made []string // the files that it has made in the backup directory
}

// newBackup returns the backup of a task's instance. dir is nil when the run keeps
// none.
func newBackup(t *task, g *guest, dir *backupDir, once *oncePerRun) *backup {
	return &backup{t: t, guest: g, dir: dir, once: once}
}

// take copies an instance's files into the backup directory, and lets the guest go
// on. The pins stay: what was lost still is. ErrRefused when the guest has ended.
func (b *backup) take(ctx context.Context) error {
	t := b.t
	if err := b.guest.saveDefinition(ctx); err != nil {
		return err
	}
	if err := b.guest.quiesce(ctx); err != nil {
		return err
	}
	if t.state().hasEnded() && t.plan.Found != StateShutOff {
		return fmt.Errorf("%w: the guest ended before its backup was complete; the keeper holds what was lost: a rescue restores it", ErrRefused)
	}
	left := t.plan.Found
	if t.run.plan.Options.KeepPaused && left == StateRunning {
		left = StatePaused
	}
	if err := b.keepAs(ctx, left, func(context.Context) error { return nil }); err != nil {
		return err
	}
	if left == StatePaused {
		t.forgetUndos() // --keep-paused: the guest stays as it is now
		return nil
	}
	return t.rollback(ctx)
}

// keep keeps copies of a rescued instance's files, if that was asked for. ended is
// called when the guest has ended while they were made: then they are not kept, and
// the error is ErrUnproven.
func (b *backup) keep(ctx context.Context, ended func(context.Context) error) error {
	if b.dir == nil || b.t.run.plan.Command != CommandRescue {
		return nil
	}
	return b.keepAs(ctx, b.t.plan.Found, ended)
}

func (b *backup) keepAs(ctx context.Context, left DomainState, ended func(context.Context) error) error {
	plan, before := b.t.plan, b.guest.snapshotBefore()
	if kept, ok := b.dir.entry(plan.UUID); ok && kept.Run == b.t.run.plan.Run {
		// The interrupted run came that far.
		if b.t.state().hasEnded() || kept.Snapshot.unchanged(before) {
			return nil
		}
		if err := b.dir.drop(kept); err != nil {
			return err
		}
	}
	entry := ManifestInstance{UUID: plan.UUID, Domain: plan.Domain, Name: plan.Name, ProjectID: plan.ProjectID, ProjectName: plan.ProjectName,
		Taken: time.Now().UTC(), Run: b.t.run.plan.Run, Found: plan.Found, Left: left, Snapshot: before, Files: []ManifestFile{}}
	if entry.Snapshot.Process.PID == 0 {
		entry.Snapshot.Process = plan.Process
	}
	b.made = nil
	err := b.t.step(ctx, stepBackup, "", func() error {
		for _, f := range plan.Files {
			file, err := b.store(ctx, f)
			if err != nil {
				return err
			}
			entry.Files = append(entry.Files, file)
		}
		if !b.t.state().hasEnded() {
			if err := b.wasQuiet(ctx, ended); err != nil {
				return err
			}
		}
		var err error
		if entry.Definition, err = b.storeDefinition(); err != nil {
			return err
		}
		return b.dir.add(entry)
	})
	if _, ok := b.dir.entry(plan.UUID); err != nil && !ok {
		b.made = append(b.made, filepath.Join(b.dir.path, plan.UUID, definitionName))
		err = errors.Join(err, b.dir.remove(plan.UUID, b.made))
	}
	return err
}

// wasQuiet makes sure that the guest was quiet all the time it was copied.
func (b *backup) wasQuiet(ctx context.Context, ended func(context.Context) error) error {
	if b.guest.snapshotBefore().Counters == nil {
		return nil // only files that it does not write were copied
	}
	err := b.guest.stillQuiet(ctx)
	if !errors.Is(err, errGuestEnded) {
		return err
	}
	if err := ended(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%w: the guest was ended while its files were copied for the backup", ErrUnproven)
}

// store copies one file into the backup, proves it, and returns its entry.
func (b *backup) store(ctx context.Context, f FilePlan) (ManifestFile, error) {
	entry := ManifestFile{Path: f.Path, Stored: storedName(f.Path, b.t.run.settings.InstancesPath),
		Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing,
		Size: f.Size, Allocated: f.Allocated, UID: f.UID, GID: f.GID, Mode: f.Mode, Writable: f.Writable}
	if f.Role != RoleBacking {
		err := b.storeFile(ctx, f, &entry)
		return entry, err
	}
	err := b.once.do("backup:"+f.Key(), func() error {
		err := b.storeFile(ctx, f, &entry)
		b.dir.noteShared(f.Key(), entry)
		return err
	})
	return b.dir.shared(f.Key()), err
}

func (b *backup) storeFile(ctx context.Context, f FilePlan, entry *ManifestFile) error {
	path := filepath.Join(b.dir.path, entry.Stored)
	if b.t.run.storedBefore(path) && !b.dir.names(path) {
		// Begun by the interrupted run, and not in the manifest.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return b.t.step(ctx, stepStore, path, func() error { return b.storeProven(ctx, f, path, entry) })
}

func (b *backup) storeProven(ctx context.Context, f FilePlan, path string, entry *ManifestFile) (err error) {
	dir, err := b.dir.mkdir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(path)
	var src copier.Source
	if f.Content == "" {
		if src, err = b.t.run.source(ctx, f); err != nil {
			return copyError(f, err)
		}
	}
	file, err := dir.Create(name)
	if errors.Is(err, fs.ErrExist) && f.Role == RoleBacking {
		return b.acceptStored(ctx, f, dir, name, src, entry)
	}
	if err != nil {
		return fmt.Errorf("back up %s: %w", f.Path, err)
	}
	if f.Role != RoleBacking {
		b.made = append(b.made, path)
	}
	defer file.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Remove(name))
		}
	}()
	if f.Content != "" {
		if err := writeContent(file, f.Content); err != nil {
			return copyError(f, err)
		}
		if src, err = copier.OpenStored(path); err != nil {
			return err
		}
		defer src.File.Close()
	} else if err := copyFile(ctx, b.t, f, file, src, false, &stagedRecord{}); err != nil {
		return copyError(f, err)
	}
	if _, entry.Size, err = measured(file); err != nil {
		return err
	}
	if f.Role == RoleConsoleLog {
		if err := samePrefix(file, src.File, entry.Size); err != nil {
			return err
		}
		src = copier.Source{File: file}
	}
	if entry.SHA256, err = b.digest(ctx, f, file, src); err != nil {
		return err
	}
	if err := checkImage(ctx, b.t, f, file, entry.Size); err != nil {
		return err
	}
	return dir.Sync()
}

// digest compares a stored copy with its source in full, and returns the digest
// of both. ErrUnproven when they differ.
func (b *backup) digest(ctx context.Context, f FilePlan, file *os.File, src copier.Source) (string, error) {
	show := b.t.run.progress.File(b.t.subject(), f.Path, stepCompare, f.Size)
	defer show.Done()
	digest, err := copier.Compare(ctx, src, file, copier.CompareOptions{Digest: true, Progress: show.Add})
	if errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return digest, err
}

// acceptStored takes a backing file that an earlier run has stored as this run's,
// if it is the same. ErrConflict when it is not.
func (b *backup) acceptStored(
	ctx context.Context, f FilePlan, dir *beneath.Dir, name string, src copier.Source, entry *ManifestFile,
) error {
	file, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	if entry.SHA256, err = b.digest(ctx, f, file, src); err != nil {
		return fmt.Errorf("%w: %s/%s is in the backup already, and is not the same: %w", ErrConflict, dir.Path(), name, err)
	}
	return nil
}

// storeDefinition keeps the domain's definition beside its files, and returns its
// name below the backup directory.
func (b *backup) storeDefinition() (string, error) {
	xml, err := b.guest.savedDefinition()
	if err != nil {
		return "", err
	}
	name := filepath.Join(b.t.plan.UUID, definitionName)
	dir, err := b.dir.mkdir(filepath.Join(b.dir.path, b.t.plan.UUID))
	if err != nil {
		return "", err
	}
	dir.Close()
	return name, writeFile(filepath.Join(b.dir.path, name), []byte(xml))
}
