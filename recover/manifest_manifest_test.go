package recover

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover/copier"
)

func goodManifest() Manifest {
	return Manifest{Version: manifestVersion, Host: "node", Instances: []ManifestInstance{{
		UUID:       testUUID(1),
		Domain:     "instance-00000001",
		Definition: testUUID(1) + "/domain.xml",
		Files: []ManifestFile{{
			Path:   "/var/lib/nova/instances/" + testUUID(1) + "/disk",
			Stored: testUUID(1) + "/disk",
			Role:   RoleDisk,
			Size:   1,
			SHA256: "00",
		}},
	}}}
}

func TestAManifestWhosePathsLeadElsewhereIsRefused(t *testing.T) {
	file := func(change func(*ManifestFile)) func(*Manifest) {
		return func(m *Manifest) { change(&m.Instances[0].Files[0]) }
	}
	for name, c := range map[string]struct {
		change func(*Manifest)
		ok     bool
	}{
		"as it is written":                {func(*Manifest) {}, true},
		"another version":                 {func(m *Manifest) { m.Version++ }, false},
		"no version":                      {func(m *Manifest) { m.Version = 0 }, false},
		"a relative path":                 {file(func(f *ManifestFile) { f.Path = "disk" }), false},
		"a path with ..":                  {file(func(f *ManifestFile) { f.Path = "/var/lib/nova/instances/../../../etc/shadow" }), false},
		"the root as a path":              {file(func(f *ManifestFile) { f.Path = "/" }), false},
		"a path with two slashes":         {file(func(f *ManifestFile) { f.Path = "//etc/shadow" }), false},
		"an empty path":                   {file(func(f *ManifestFile) { f.Path = "" }), false},
		"a copy outside the directory":    {file(func(f *ManifestFile) { f.Stored = "../../etc/shadow" }), false},
		"a copy at an absolute path":      {file(func(f *ManifestFile) { f.Stored = "/etc/shadow" }), false},
		"no place of the copy":            {file(func(f *ManifestFile) { f.Stored = "" }), false},
		"a negative size":                 {file(func(f *ManifestFile) { f.Size = -1 }), false},
		"a negative allocation":           {file(func(f *ManifestFile) { f.Allocated = -1 }), false},
		"no digest":                       {file(func(f *ManifestFile) { f.SHA256 = "" }), false},
		"a UUID that is a path":           {func(m *Manifest) { m.Instances[0].UUID = "../../../../../../../../etc/x/y/z/a/b" }, false},
		"a UUID in upper case":            {func(m *Manifest) { m.Instances[0].UUID = strings.ToUpper(testUUID(10)) }, false},
		"an empty UUID":                   {func(m *Manifest) { m.Instances[0].UUID = "" }, false},
		"a definition outside":            {func(m *Manifest) { m.Instances[0].Definition = "../domain.xml" }, false},
		"no definition (an older backup)": {func(m *Manifest) { m.Instances[0].Definition = "" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := goodManifest()
			c.change(&m)
			data, err := json.Marshal(m)
			must(t, err)
			if _, err := parseManifest(data); (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, manifestName), data, 0o600))
			if _, err := readManifest(dir); (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrNoBackup) {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := readManifest(t.TempDir()); !errors.Is(err, ErrNoBackup) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestABackupsFileIsNeverReadThroughASymlink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "disk")
	must(t, os.Symlink("/etc/passwd", link))
	if src, err := copier.OpenStored(link); err == nil {
		src.File.Close()
		t.Error("it was followed")
	}
}

func FuzzParseManifest(f *testing.F) {
	data, err := json.Marshal(goodManifest())
	must(f, err)
	f.Add(data)
	f.Add([]byte(`{"version":1,"instances":[{"uuid":"../..","files":[{"path":"/a","stored":"b","sha256":"c"}]}]}`))
	f.Add([]byte(`{"version":1,"instances":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
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
