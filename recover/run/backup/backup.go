package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// Backup is the copies of one instance's files in the run's backup directory.
type Backup struct {
	t     *task.Task
	guest *guest.Guest
	dir   *Dir          // nil when the run keeps no backup
	once  *staging.Once // the run's

	made []string // the files that it has made in the backup directory
}

// New returns the backup of a task's instance. dir and once are the run's; dir is nil when
// the run keeps no backup.
func New(t *task.Task, g *guest.Guest, dir *Dir, once *staging.Once) *Backup {
	return &Backup{t: t, guest: g, dir: dir, once: once}
}

// Take copies an instance's files into the backup directory, and lets the guest go on
// unless it is to stay paused. The pins stay: what was lost still is.
//
// Errors of package recover: ErrRefused when the guest has ended or must not be suspended,
// ErrUnproven, ErrConflict, ErrNoSpace. Of an image that is corrupt a copy is kept, and a note.
func (b *Backup) Take(ctx context.Context) error {
	t := b.t
	if err := b.guest.SaveDefinition(ctx); err != nil {
		return err
	}
	if err := b.guest.Quiesce(ctx); err != nil {
		return err
	}
	if t.State().HasEnded() && t.Plan.Found != recover.StateShutOff {
		return fmt.Errorf("%w: the guest ended before its backup was complete; the keeper holds what was lost: a rescue restores it",
			recover.ErrRefused)
	}
	left := t.Plan.Found
	if t.Run.Plan.Options.KeepPaused && left == recover.StateRunning {
		left = recover.StatePaused
	}
	if err := b.keepAs(ctx, left, func(context.Context) error { return nil }); err != nil {
		return err
	}
	if left == recover.StatePaused {
		t.ForgetUndos() // --keep-paused: the guest stays as it is now
		return nil
	}
	return t.Rollback(ctx)
}

// Keep keeps copies of a rescued instance's files, if that was asked for. When the guest
// has ended while they were made they are not kept: ended is called, and the error is its
// own or recover.ErrUnproven. The other errors are those of Take.
func (b *Backup) Keep(ctx context.Context, ended func(context.Context) error) error {
	if b.dir == nil || b.t.Run.Plan.Command != recover.CommandRescue {
		return nil
	}
	return b.keepAs(ctx, b.t.Plan.Found, ended)
}

func (b *Backup) keepAs(ctx context.Context, left recover.DomainState, ended func(context.Context) error) error {
	plan, before := b.t.Plan, b.guest.SnapshotBefore()
	if kept, ok := b.dir.entry(plan.UUID); ok && kept.Run == b.t.Run.Plan.Run {
		// The interrupted run came that far.
		if b.t.State().HasEnded() || kept.Snapshot.Unchanged(before) {
			return nil
		}
		if err := b.dir.drop(plan.UUID, b.own()); err != nil {
			return err
		}
	}
	entry := manifest.Instance{
		UUID:        plan.UUID,
		Domain:      plan.Domain,
		Name:        plan.Name,
		ProjectID:   plan.ProjectID,
		ProjectName: plan.ProjectName,
		Taken:       time.Now().UTC(),
		BootID:      b.t.Run.Plan.BootID,
		Run:         b.t.Run.Plan.Run,
		Found:       plan.Found,
		Left:        left,
		Snapshot:    before,
		Files:       []manifest.File{},
	}
	if entry.Snapshot.Process.PID == 0 {
		entry.Snapshot.Process = plan.Process
	}
	b.made = nil
	err := b.t.Step(ctx, journal.StepBackup, "", func() error {
		for _, f := range plan.Files {
			file, err := b.store(ctx, f)
			if err != nil {
				return err
			}
			entry.Files = append(entry.Files, file)
		}
		if !b.t.State().HasEnded() {
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
		err = errors.Join(err, b.dir.remove(plan.UUID, b.made))
	}
	return err
}

// RemoveBegun removes what the interrupted run had stored of a backup that will not be
// complete: it would be in the way of the next one.
func (b *Backup) RemoveBegun() error {
	if b.dir == nil || b.t.History == nil {
		return nil
	}
	unnamed := slices.DeleteFunc(slices.Clone(b.t.History.Stores), b.dir.names)
	if len(unnamed) == 0 {
		return nil
	}
	return b.dir.remove(b.t.Plan.UUID, unnamed)
}

// own returns what the interrupted run had stored of this instance alone, as its journal has it.
func (b *Backup) own() []string {
	if b.t.History == nil {
		return nil
	}
	shared := map[string]bool{}
	for _, i := range b.t.Run.Plan.Instances {
		for _, f := range i.Files {
			if f.Role == recover.RoleBacking {
				shared[b.pathOf(f)] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(b.t.History.Stores), func(path string) bool { return shared[path] })
}

// pathOf returns where a file is stored.
func (b *Backup) pathOf(f recover.FilePlan) string {
	return filepath.Join(b.dir.path, manifest.StoredName(f.Path, b.t.Run.Settings.InstancesPath))
}

// wasQuiet makes sure that the guest was quiet all the time it was copied.
func (b *Backup) wasQuiet(ctx context.Context, ended func(context.Context) error) error {
	if b.guest.SnapshotBefore().Counters == nil {
		return nil // only files that it does not write were copied
	}
	err := b.guest.StillQuiet(ctx)
	if !errors.Is(err, guest.ErrEnded) {
		return err
	}
	if err := ended(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%w: the guest was ended while its files were copied for the backup", recover.ErrUnproven)
}

// store copies one file into the backup, proves it, and returns its entry.
func (b *Backup) store(ctx context.Context, f recover.FilePlan) (manifest.File, error) {
	entry := manifest.File{
		Path:      f.Path,
		Stored:    manifest.StoredName(f.Path, b.t.Run.Settings.InstancesPath),
		Role:      f.Role,
		Format:    f.Format,
		Target:    f.Target,
		Backing:   f.Backing,
		Size:      f.Size,
		Allocated: f.Allocated,
		UID:       f.UID,
		GID:       f.GID,
		Mode:      f.Mode,
		Writable:  f.Writable,
	}
	if f.Content == "" {
		entry.User, entry.Group = b.t.Run.Root.UserName(f.UID), b.t.Run.Root.GroupName(f.GID)
	}
	if f.Role != recover.RoleBacking {
		err := b.storeFile(ctx, f, &entry)
		return entry, err
	}
	err := b.once.Do("backup:"+f.Key(), func() error {
		err := b.storeFile(ctx, f, &entry)
		b.dir.noteShared(f.Key(), entry)
		return err
	})
	return b.dir.shared(f.Key()), err
}

func (b *Backup) storeFile(ctx context.Context, f recover.FilePlan, entry *manifest.File) error {
	path := filepath.Join(b.dir.path, entry.Stored)
	if b.t.Run.StoredBefore(path) && !b.dir.names(path) {
		// Begun by the interrupted run, and not in the manifest.
		if err := b.dir.removeFile(path); err != nil {
			return err
		}
	}
	return b.t.Step(ctx, journal.StepStore, path, func() error { return b.storeProven(ctx, f, path, entry) })
}

func (b *Backup) storeProven(ctx context.Context, f recover.FilePlan, path string, entry *manifest.File) (err error) {
	dir, err := b.dir.mkdir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(path)
	var src copier.Source
	if f.Content == "" {
		if src, err = b.t.Run.Source(ctx, f); err != nil {
			return staging.CopyError(f, err)
		}
	}
	file, err := dir.Create(name)
	if errors.Is(err, fs.ErrExist) && f.Role == recover.RoleBacking {
		return b.acceptStored(ctx, f, dir, name, src, entry)
	}
	if err != nil {
		return fmt.Errorf("back up %s: %w", f.Path, err)
	}
	if f.Role != recover.RoleBacking {
		b.made = append(b.made, path)
	}
	defer file.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Remove(name))
		}
	}()
	if f.Content != "" {
		if err := staging.WriteContent(file, f.Content); err != nil {
			return staging.CopyError(f, err)
		}
		if src.File, err = dir.Open(name, os.O_RDONLY); err != nil {
			return err
		}
		defer src.File.Close()
	} else if err := staging.CopyFile(ctx, b.t, f, file, src, nil, &journal.Staged{}); err != nil {
		return staging.CopyError(f, err)
	}
	if _, entry.Size, err = staging.Measured(file); err != nil {
		return err
	}
	if f.Role == recover.RoleConsoleLog {
		if err := staging.SamePrefix(file, src.File, entry.Size); err != nil {
			return err
		}
		src = copier.Source{File: file}
	}
	if entry.SHA256, err = b.digest(ctx, f, file, src); err != nil {
		return err
	}
	err = staging.CheckImage(ctx, b.t, f, file, entry.Size, func(found string) {
		entry.Corrupt = found
		b.t.Notef("%s is corrupt (%s): the backup keeps a copy that equals it to the byte", f.Path, found)
	})
	if err != nil {
		return err
	}
	return dir.Sync()
}

// digest compares a stored copy with its source in full, and returns the digest
// of both. ErrUnproven when they differ.
func (b *Backup) digest(ctx context.Context, f recover.FilePlan, file *os.File, src copier.Source) (string, error) {
	show := b.t.Run.Progress.File(b.t.Subject(), f.Path, journal.StepCompare, f.Size)
	defer show.Done()
	digest, err := copier.Compare(ctx, src, file, copier.CompareOptions{Digest: true, Progress: show.Add})
	if errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %w", recover.ErrUnproven, err)
	}
	return digest, err
}

// acceptStored takes a backing file that an earlier run has stored for this run's, if it
// is the same. recover.ErrConflict when it is not.
func (b *Backup) acceptStored(
	ctx context.Context, f recover.FilePlan, dir *beneath.Dir, name string, src copier.Source, entry *manifest.File,
) error {
	file, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	if entry.SHA256, err = b.digest(ctx, f, file, src); err != nil {
		return fmt.Errorf("%w: %s/%s is in the backup already, and is not the same: %w", recover.ErrConflict, dir.Path(), name, err)
	}
	return nil
}

// storeDefinition keeps the domain's definition beside its files, and returns its
// name below the backup directory.
func (b *Backup) storeDefinition() (string, error) {
	xml, err := b.guest.SavedDefinition()
	if err != nil {
		return "", err
	}
	name := filepath.Join(b.t.Plan.UUID, manifest.DefinitionName)
	dir, err := b.dir.mkdir(filepath.Join(b.dir.path, b.t.Plan.UUID))
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return name, beneath.Write(dir, manifest.DefinitionName, []byte(xml))
}
