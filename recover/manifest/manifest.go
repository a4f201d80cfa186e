package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
	Mode      recover.FileMode `json:"mode"`              // as UID
	Writable  bool             `json:"writable"`          // the guest writes it
}

// Read reads the manifest of the backup in dir. ErrNoBackup when dir has none,
// or none that this version can read.
func Read(dir string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		return m, fmt.Errorf("%w in %s: %w", ErrNoBackup, dir, err)
	}
	if m, err = parse(data); err != nil {
		return m, fmt.Errorf("%w in %s: %w", ErrNoBackup, dir, err)
	}
	return m, nil
}

// parse reads a manifest. It accepts only absolute, clean paths of files, and
// only paths of copies that stay below the backup's directory.
func parse(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	if m.Version != Version {
		return m, fmt.Errorf("its manifest has version %d, but this program knows only version %d", m.Version, Version)
	}
	for _, i := range m.Instances {
		if !recover.ValidUUID(i.UUID) {
			return m, fmt.Errorf("%q is not a UUID", i.UUID)
		}
		for _, f := range i.Files {
			fits := filepath.IsAbs(f.Path) && filepath.Clean(f.Path) == f.Path && f.Path != "/" && filepath.IsLocal(f.Stored)
			if !fits || f.Size < 0 || f.Allocated < 0 {
				return m, fmt.Errorf("%s: the entry of %q (stored as %q) is not valid", i.UUID, f.Path, f.Stored)
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

// StoredDefinition returns the XML of a domain from the backup in dir, with its secrets.
// ErrNoBackup when dir has no backup that this version can read; another error when the
// backup has no definition of that domain.
func StoredDefinition(dir, uuid string) (string, error) {
	m, err := Read(dir)
	if err != nil {
		return "", err
	}
	i, ok := m.Find(uuid)
	if !ok || i.Definition == "" {
		return "", fmt.Errorf("the backup in %s has no definition of %s", dir, uuid)
	}
	data, err := os.ReadFile(filepath.Join(dir, i.Definition))
	return string(data), err
}
