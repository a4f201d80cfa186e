package recover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	manifestName    = "manifest.json"
	manifestVersion = 1
)

// ErrNoBackup: the directory holds no backup that this version can read.
var ErrNoBackup = errors.New("no backup")

// Manifest says what a backup's directory holds. The directory alone is enough
// to restore from.
type Manifest struct {
	Version   int                `json:"version"`
	Host      string             `json:"host"`
	Instances []ManifestInstance `json:"instances"`
}

// ManifestInstance is one instance of a backup.
type ManifestInstance struct {
	UUID        string         `json:"uuid"`
	Domain      string         `json:"domain"`
	Name        string         `json:"name,omitempty"`
	ProjectID   string         `json:"project_id,omitempty"`
	ProjectName string         `json:"project_name,omitempty"`
	Taken       time.Time      `json:"taken"`
	Run         string         `json:"run"`
	Found       DomainState    `json:"found"`      // before the backup
	Left        DomainState    `json:"left"`       // after it
	Snapshot    Snapshot       `json:"snapshot"`   // how much the guest had written when it was copied
	Definition  string         `json:"definition"` // the domain's XML, below the directory
	Files       []ManifestFile `json:"files"`
}

// ManifestFile is one file of a backup.
type ManifestFile struct {
	Path      string   `json:"path"`   // where it belongs
	Stored    string   `json:"stored"` // where it is, below the directory
	Role      Role     `json:"role"`
	Format    string   `json:"format,omitempty"`
	Target    string   `json:"target,omitempty"`
	Backing   string   `json:"backing,omitempty"`
	Size      int64    `json:"size"`
	Allocated int64    `json:"allocated"`
	SHA256    string   `json:"sha256"`
	UID       uint32   `json:"uid"`
	GID       uint32   `json:"gid"`
	Mode      FileMode `json:"mode"`
	Writable  bool     `json:"writable"`
}

// readManifest reads a backup's manifest. ErrNoBackup when there is none, or
// none that this version can read.
func readManifest(dir string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return m, fmt.Errorf("%w in %s: %w", ErrNoBackup, dir, err)
	}
	if m, err = parseManifest(data); err != nil {
		return m, fmt.Errorf("%w in %s: %w", ErrNoBackup, dir, err)
	}
	return m, nil
}

// parseManifest reads a manifest and refuses one whose paths could lead anywhere
// but to where they say: absolute ones for files, local ones for their copies.
func parseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	if m.Version != manifestVersion {
		return m, fmt.Errorf("its manifest has version %d, this program knows %d", m.Version, manifestVersion)
	}
	for _, i := range m.Instances {
		if !validUUID(i.UUID) {
			return m, fmt.Errorf("%q is no UUID", i.UUID)
		}
		for _, f := range i.Files {
			if !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path || f.Path == "/" || !filepath.IsLocal(f.Stored) || f.Size < 0 || f.Allocated < 0 {
				return m, fmt.Errorf("%s: the entry of %q (stored as %q) makes no sense", i.UUID, f.Path, f.Stored)
			}
			if f.SHA256 == "" {
				return m, fmt.Errorf("%s: %s has no digest", i.UUID, f.Path)
			}
		}
		if i.Definition != "" && !filepath.IsLocal(i.Definition) {
			return m, fmt.Errorf("%s: the definition's place %q makes no sense", i.UUID, i.Definition)
		}
	}
	return m, nil
}

// find returns the entry of an instance.
func (m Manifest) find(uuid string) (ManifestInstance, bool) {
	for _, i := range m.Instances {
		if i.UUID == uuid {
			return i, true
		}
	}
	return ManifestInstance{}, false
}

// storedXML returns the definition that a backup has of a domain.
func storedXML(dir, uuid string) (string, error) {
	m, err := readManifest(dir)
	if err != nil {
		return "", err
	}
	i, ok := m.find(uuid)
	if !ok || i.Definition == "" {
		return "", fmt.Errorf("the backup in %s has no definition of %s", dir, uuid)
	}
	data, err := os.ReadFile(filepath.Join(dir, i.Definition))
	return string(data), err
}
