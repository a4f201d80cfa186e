package manifest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func goodManifest() Manifest {
	return Manifest{Version: Version, Host: "node", Instances: []Instance{{
		UUID:       recovertest.UUID(1),
		Domain:     "instance-00000001",
		Definition: recovertest.UUID(1) + "/domain.xml",
		Files: []File{{
			Path:   "/var/lib/nova/instances/" + recovertest.UUID(1) + "/disk",
			Stored: recovertest.UUID(1) + "/disk",
			Role:   recover.RoleDisk,
			Size:   1,
			SHA256: "00",
		}},
	}}}
}

func TestAManifestWhosePathsLeadElsewhereIsRefused(t *testing.T) {
	file := func(change func(*File)) func(*Manifest) {
		return func(m *Manifest) { change(&m.Instances[0].Files[0]) }
	}
	for name, c := range map[string]struct {
		change func(*Manifest)
		ok     bool
	}{
		"as it is written":                {func(*Manifest) {}, true},
		"another version":                 {func(m *Manifest) { m.Version++ }, false},
		"no version":                      {func(m *Manifest) { m.Version = 0 }, false},
		"a relative path":                 {file(func(f *File) { f.Path = "disk" }), false},
		"a path with ..":                  {file(func(f *File) { f.Path = "/var/lib/nova/instances/../../../etc/shadow" }), false},
		"the root as a path":              {file(func(f *File) { f.Path = "/" }), false},
		"a path with two slashes":         {file(func(f *File) { f.Path = "//etc/shadow" }), false},
		"an empty path":                   {file(func(f *File) { f.Path = "" }), false},
		"a copy outside the directory":    {file(func(f *File) { f.Stored = "../../etc/shadow" }), false},
		"a copy at an absolute path":      {file(func(f *File) { f.Stored = "/etc/shadow" }), false},
		"no place of the copy":            {file(func(f *File) { f.Stored = "" }), false},
		"a negative size":                 {file(func(f *File) { f.Size = -1 }), false},
		"a negative allocation":           {file(func(f *File) { f.Allocated = -1 }), false},
		"no digest":                       {file(func(f *File) { f.SHA256 = "" }), false},
		"a UUID that is a path":           {func(m *Manifest) { m.Instances[0].UUID = "../../../../../../../../etc/x/y/z/a/b" }, false},
		"a UUID in upper case":            {func(m *Manifest) { m.Instances[0].UUID = strings.ToUpper(recovertest.UUID(10)) }, false},
		"an empty UUID":                   {func(m *Manifest) { m.Instances[0].UUID = "" }, false},
		"a definition outside":            {func(m *Manifest) { m.Instances[0].Definition = "../domain.xml" }, false},
		"no definition (an older backup)": {func(m *Manifest) { m.Instances[0].Definition = "" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := goodManifest()
			c.change(&m)
			data, err := json.Marshal(m)
			recovertest.Must(t, err)
			if _, err := parse(data); (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
			dir := t.TempDir()
			recovertest.Must(t, os.WriteFile(filepath.Join(dir, FileName), data, 0o600))
			if _, err := Read(dir); (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrNoBackup) {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := Read(t.TempDir()); !errors.Is(err, ErrNoBackup) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestABackupsFileIsNeverReadThroughASymlink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "disk")
	recovertest.Must(t, os.Symlink("/etc/passwd", link))
	if src, err := copier.OpenStored(link); err == nil {
		src.File.Close()
		t.Error("it was followed")
	}
}

func FuzzParseManifest(f *testing.F) {
	data, err := json.Marshal(goodManifest())
	recovertest.Must(f, err)
	f.Add(data)
	f.Add([]byte(`{"version":1,"instances":[{"uuid":"../..","files":[{"path":"/a","stored":"b","sha256":"c"}]}]}`))
	f.Add([]byte(`{"version":1,"instances":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parse(data)
		if err != nil {
			return
		}
		for _, i := range m.Instances {
			if len(i.UUID) != 36 || strings.ContainsAny(i.UUID, "/.") {
				t.Fatalf("the UUID %q was let through", i.UUID)
			}
			for _, file := range i.Files {
				if !filepath.IsAbs(file.Path) || strings.Contains(file.Path, "/../") || strings.HasSuffix(file.Path, "/..") {
					t.Fatalf("the path %q was let through", file.Path)
				}
				if got := filepath.Join("/backup", file.Stored); !strings.HasPrefix(got, "/backup/") && got != "/backup" {
					t.Fatalf("%q leads to %s", file.Stored, got)
				}
			}
		}
	})
}
