package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

const (
	// FileName is the manifest's name in a backup's directory.
	FileName = "manifest.json"
	// Version is that of the manifests that this program writes, and the only one that it
	// reads.
	Version = 1
	// mostBytes is more than the manifest of ten thousand instances takes, or a definition.
	mostBytes = 64 << 20
)

// ErrNoBackup: the directory contains no backup that this version can read.
var ErrNoBackup = errors.New("no backup")

// Manifest lists what a backup's directory contains. A restore needs nothing but that
// directory.
type Manifest struct {
	Version   int        `json:"version"`   // Version
	Host      string     `json:"host"`      // the compute host that the backups were made on
	Instances []Instance `json:"instances"` // every instance of which it has copies
}

// Instance is one instance of a backup.
type Instance struct {
	UUID        string              `json:"uuid"`                   // of the domain, and of Nova's instance
	Domain      string              `json:"domain"`                 // the name of its libvirt domain
	Name        string              `json:"name,omitempty"`         // Nova's display name
	ProjectID   string              `json:"project_id,omitempty"`   // of the project that owns it
	ProjectName string              `json:"project_name,omitempty"` // as it was when the backup was made
	Taken       time.Time           `json:"taken"`                  // while the guest was off or suspended for it
	BootID      string              `json:"boot_id,omitempty"`      // of the boot in which it was taken
	Run         string              `json:"run"`                    // the name of the run that made it
	Found       recover.DomainState `json:"found"`                  // before the backup
	Left        recover.DomainState `json:"left"`                   // after it
	Snapshot    recover.Snapshot    `json:"snapshot"`               // the guest's write counters when it was copied
	Definition  string              `json:"definition"`             // the domain's XML, below the directory
	Files       []File              `json:"files"`                  // its copies
}

// File is one file of a backup.
type File struct {
	Path      string           `json:"path"`              // where it belongs
	Stored    string           `json:"stored"`            // where it is, below the directory
	Role      recover.Role     `json:"role"`              // what it is to its instance
	Format    string           `json:"format,omitempty"`  // from libvirt, never probed
	Target    string           `json:"target,omitempty"`  // the disk it belongs to: vda
	Backing   string           `json:"backing,omitempty"` // the path of its backing file
	Size      int64            `json:"size"`              // bytes
	Allocated int64            `json:"allocated"`         // bytes on disk, holes not counted
	SHA256    string           `json:"sha256"`            // of the copy, in hexadecimal
	UID       uint32           `json:"uid"`               // of the original, as Path had it
	GID       uint32           `json:"gid"`               // as UID
	User      string           `json:"user,omitempty"`    // the name of UID then; empty when it had none
	Group     string           `json:"group,omitempty"`   // as User
	Mode      recover.FileMode `json:"mode"`              // as UID
	Writable  bool             `json:"writable"`          // the guest writes it
	Corrupt   string           `json:"corrupt,omitempty"` // what qemu-img check found in the original, which the copy equals
}

// Read reads the manifest of the backup in dir: Open and Store.Manifest in one.
func Read(dir, owner string) (Manifest, error) {
	s, err := Open(dir, owner)
	if err != nil {
		return Manifest{}, err
	}
	defer s.Close()
	return s.Manifest()
}

// parse reads a manifest. It accepts only absolute, clean paths of files, each once, only
// paths of copies that stay below the backup's directory, and only roles that files have.
func parse(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	if m.Version != Version {
		return m, fmt.Errorf("its manifest has version %d, but this program knows only version %d", m.Version, Version)
	}
	instances := map[string]bool{}
	for _, i := range m.Instances {
		if !recover.ValidUUID(i.UUID) {
			return m, fmt.Errorf("%q is not a UUID", i.UUID)
		}
		if instances[i.UUID] {
			return m, fmt.Errorf("it has %s twice", i.UUID)
		}
		instances[i.UUID] = true
		paths := map[string]bool{}
		for _, f := range i.Files {
			fits := filepath.IsAbs(f.Path) && filepath.Clean(f.Path) == f.Path && f.Path != "/" && filepath.IsLocal(f.Stored)
			if !fits || f.Size < 0 || f.Allocated < 0 {
				return m, fmt.Errorf("%s: the entry of %q (stored as %q) is not valid", i.UUID, f.Path, f.Stored)
			}
			if paths[f.Path] {
				return m, fmt.Errorf("%s: it has %s twice", i.UUID, f.Path)
			}
			paths[f.Path] = true
			if !f.Role.IsKnown() {
				return m, fmt.Errorf("%s: %s has the role %q, which no file has", i.UUID, f.Path, f.Role)
			}
			if f.SHA256 == "" {
				return m, fmt.Errorf("%s: %s has no digest", i.UUID, f.Path)
			}
		}
		if i.Definition != "" && !filepath.IsLocal(i.Definition) {
			return m, fmt.Errorf("%s: the path of its definition, %q, is not valid", i.UUID, i.Definition)
		}
	}
	return m, nil
}

// Find returns the entry of an instance, and whether there is one.
func (m Manifest) Find(uuid string) (Instance, bool) {
	for _, i := range m.Instances {
		if i.UUID == uuid {
			return i, true
		}
	}
	return Instance{}, false
}

// Named returns the files of the backup as a definition would name them: where they belong
// and what they are, not where they stand.
func (i Instance) Named() []recover.File {
	var files []recover.File
	for _, f := range i.Files {
		files = append(files, recover.File{
			Path:     f.Path,
			Role:     f.Role,
			Format:   f.Format,
			Target:   f.Target,
			Backing:  f.Backing,
			Writable: f.Writable,
		})
	}
	return files
}
