package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// Options are options of Backup.
type Options struct {
	// Progress is shown each file; never nil.
	Progress recover.Progress
	// AcceptOwner is as recover.Options has it.
	AcceptOwner string
}

// Backup reads every file that the manifest in dir names, in full, and compares its size and
// its SHA-256 with the manifest's; qcow2 images are checked with qemu-img, where it is there
// and the image is not encrypted. When the context ends the report has what was read by then,
// and says Interrupted.
//
// The error is recover.ErrUsage, and manifest.ErrNoBackup, when dir has no backup that this
// version can read. Trouble with a file is in the report.
func Backup(ctx context.Context, dir string, o Options) (Report, error) {
	store, err := manifest.Open(dir, o.AcceptOwner)
	if err != nil {
		return Report{}, fmt.Errorf("%w: %w", recover.ErrUsage, err)
	}
	defer store.Close()
	m, err := store.Manifest()
	if err != nil {
		return Report{}, fmt.Errorf("%w: %w", recover.ErrUsage, err)
	}
	r := reader{store: store, options: o, read: map[string]File{}}
	report := Report{Directory: dir, Host: m.Host, OK: true, Instances: []Instance{}, Incomplete: []string{}, Unnamed: []string{}}
	o.Progress.Begin(len(m.Instances), 0)
	defer o.Progress.End()
	for _, entry := range m.Instances {
		i := r.instance(ctx, entry)
		report.Instances = append(report.Instances, i)
		report.OK = report.OK && i.OK
	}
	report.Interrupted = ctx.Err() != nil
	return report, strays(dir, m, &report)
}

// reader reads the files of one backup.
type reader struct {
	store   *manifest.Store
	options Options
	read    map[string]File // by their place below the directory: instances share backing files
}

func (r *reader) instance(ctx context.Context, entry manifest.Instance) Instance {
	i := Instance{UUID: entry.UUID, Domain: entry.Domain, Name: entry.Name, Taken: entry.Taken, OK: true, Files: []File{}}
	who := recover.Subject{UUID: entry.UUID, Domain: entry.Domain, Name: entry.Name}
	for _, want := range entry.Files {
		i.Files = append(i.Files, r.file(ctx, who, want))
	}
	if entry.Definition != "" {
		i.Files = append(i.Files, r.definition(ctx, entry.Definition))
	}
	i.OK = !slices.ContainsFunc(i.Files, func(f File) bool { return f.State != StateOK })
	return i
}

// file reads one file, if no other instance had it read before, and holds it against what
// the manifest says.
func (r *reader) file(ctx context.Context, who recover.Subject, want manifest.File) File {
	place := filepath.Clean(want.Stored)
	found, ok := r.read[place]
	if !ok {
		found = r.readFile(ctx, who, want)
		r.read[place] = found
	}
	found.Path, found.Stored, found.Role = want.Path, want.Stored, want.Role
	if found.State == StateMissing || found.State == StateUnreadable || found.State == StateNotRead {
		return found
	}
	switch {
	case found.Size != want.Size:
		found.State, found.Reason = StateDiffers, fmt.Sprintf("it has %d bytes, the manifest says %d", found.Size, want.Size)
	case found.SHA256 != want.SHA256:
		found.State, found.Reason = StateDiffers, fmt.Sprintf("it has the SHA-256 %s, the manifest says %s", found.SHA256, want.SHA256)
	}
	return found
}

// readFile reads one file in full and, if it is a qcow2 image, has it checked.
func (r *reader) readFile(ctx context.Context, who recover.Subject, want manifest.File) File {
	file, found := r.open(ctx, want.Stored)
	if file == nil {
		return found
	}
	defer file.Close()
	show := r.options.Progress.File(who, want.Stored, "compare", found.Size)
	defer show.Done()
	var err error
	if found.SHA256, err = copier.Digest(ctx, file, show.Add); err != nil {
		return failed(ctx, found, err)
	}
	if want.Format == "qcow2" && found.Size > 0 && found.SHA256 == want.SHA256 {
		r.check(ctx, file, &found)
	}
	return found
}

// check has qemu-img look through an image that is what was backed up.
func (r *reader) check(ctx context.Context, file *os.File, found *File) {
	result, err := qcow2.Check(ctx, file, qcow2.CheckOptions{})
	switch {
	case ctx.Err() != nil:
		*found = failed(ctx, *found, err)
	case err != nil:
		found.Unchecked = "qemu-img could not check it: " + err.Error()
	case result.Skipped != "":
		found.Unchecked = result.Skipped
	case result.Corrupt():
		found.Checked, found.State = true, StateCorrupt
		found.Reason = fmt.Sprintf("qemu-img check finds %d corruptions (%d places could not be checked)", result.Corruptions, result.CheckErrors)
	default:
		found.Checked = true
	}
}

// definition looks whether the domain's definition is there. The manifest has no digest of it.
func (r *reader) definition(ctx context.Context, stored string) File {
	file, found := r.open(ctx, stored)
	if file == nil {
		return found
	}
	defer file.Close()
	if found.Size == 0 {
		found.State, found.Reason = StateDiffers, "it is empty"
	}
	return found
}

// open opens one file of the backup. It returns nil, and what is wrong, when it can't be opened.
func (r *reader) open(ctx context.Context, stored string) (*os.File, File) {
	found := File{Stored: stored, State: StateOK}
	if ctx.Err() != nil {
		return nil, failed(ctx, found, ctx.Err())
	}
	file, err := r.store.File(stored)
	if err != nil {
		return nil, failed(ctx, found, err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, failed(ctx, found, err)
	}
	found.Size = info.Size()
	return file, found
}

// failed says why a file was not read.
func failed(ctx context.Context, found File, err error) File {
	found.SHA256 = ""
	switch {
	case ctx.Err() != nil:
		found.State, found.Reason = StateNotRead, "interrupted before it was read"
	case errors.Is(err, fs.ErrNotExist):
		found.State, found.Reason = StateMissing, "it is not there"
	default:
		found.State, found.Reason = StateUnreadable, "it can't be read: "+err.Error()
	}
	return found
}

// strays lists what is in a backup's directory and not in its manifest.
func strays(dir string, m manifest.Manifest, report *Report) error {
	named := map[string]bool{manifest.FileName: true}
	for _, i := range m.Instances {
		if i.Definition != "" {
			named[filepath.Clean(i.Definition)] = true
		}
		for _, f := range i.Files {
			named[filepath.Clean(f.Stored)] = true
		}
	}
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		name, rerr := filepath.Rel(dir, path)
		if err != nil || rerr != nil {
			return nil //nolint:nilerr // lost+found of another user's: what the manifest names was read
		}
		if entry.IsDir() || named[name] {
			return nil
		}
		if top, _, below := strings.Cut(name, "/"); below && recover.ValidUUID(top) && !slices.Contains(report.Incomplete, top) {
			if _, ok := m.Find(top); !ok {
				report.Incomplete = append(report.Incomplete, top)
				report.OK = false
			}
		}
		if len(report.Unnamed) < mostUnnamed {
			report.Unnamed = append(report.Unnamed, name)
		} else {
			report.More++
		}
		return nil
	})
}
