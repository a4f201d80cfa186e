package manifest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
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
		"a path twice":                    {func(m *Manifest) { i := &m.Instances[0]; i.Files = append(i.Files, i.Files...) }, false},
		"an instance twice":               {func(m *Manifest) { m.Instances = append(m.Instances, m.Instances...) }, false},
		"a role that no file has":         {file(func(f *File) { f.Role = "cron" }), false},
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
			if _, err := Read(dir, ""); (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrNoBackup) {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := Read(t.TempDir(), ""); !errors.Is(err, ErrNoBackup) {
		t.Errorf("an empty directory: %v", err)
	}
}

// Whoever can write a backup's directory must not be able to make a run wait, or take all
// memory.
func TestWhatIsNoFileOfABackupIsAnErrorAtOnce(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a FIFO":       func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a device":     func(path string) error { return os.Symlink("/dev/zero", path) },
		"a directory":  func(path string) error { return os.Mkdir(path, 0o700) },
		"without end":  func(path string) error { return sparse(path, 1<<40) },
		"a bit larger": func(path string) error { return sparse(path, mostBytes+1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			recovertest.Must(t, put(filepath.Join(dir, FileName)))
			if _, err := Read(dir, ""); !errors.Is(err, ErrNoBackup) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the manifest: %v", err)
			}
			dir = t.TempDir()
			data, err := json.Marshal(goodManifest())
			recovertest.Must(t, err)
			recovertest.Must(t, os.WriteFile(filepath.Join(dir, FileName), data, 0o600))
			recovertest.Must(t, os.Mkdir(filepath.Join(dir, recovertest.UUID(1)), 0o700))
			recovertest.Must(t, put(filepath.Join(dir, recovertest.UUID(1), DefinitionName)))
			store, err := Open(dir, "")
			recovertest.Must(t, err)
			defer store.Close()
			if _, err := store.Definition(recovertest.UUID(1)); err == nil {
				t.Error("the definition was read")
			}
		})
	}
}

func sparse(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, size)
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
