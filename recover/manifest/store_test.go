package manifest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

const stranger = 65534

// stored makes a backup of one instance, in DIR/share/backup.
func stored(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "share", "backup")
	own := filepath.Join(dir, recovertest.UUID(1))
	recovertest.Must(t, os.MkdirAll(own, 0o700))
	data, err := json.Marshal(goodManifest())
	recovertest.Must(t, err)
	for path, text := range map[string]string{
		filepath.Join(dir, FileName):       string(data),
		filepath.Join(own, "disk"):         "content",
		filepath.Join(own, DefinitionName): "<domain/>",
	} {
		recovertest.Must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// read reads all of a backup, as a restore does.
func read(dir, owner string) error {
	s, err := Open(dir, owner)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Manifest(); err != nil {
		return err
	}
	f, err := s.File(recovertest.UUID(1) + "/disk")
	if err != nil {
		return err
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "content" {
		return errors.Join(err, errors.New("another content"))
	}
	if owner != "" {
		return nil
	}
	_, err = s.Definition(recovertest.UUID(1))
	return err
}

func TestWhatOthersCanWriteIsNoBackup(t *testing.T) {
	disk := filepath.Join(recovertest.UUID(1), "disk")
	given := func(path string) func(string) error {
		return func(dir string) error { return os.Chown(filepath.Join(dir, path), stranger, stranger) }
	}
	writable := func(path string, mode os.FileMode) func(string) error {
		return func(dir string) error { return os.Chmod(filepath.Join(dir, path), mode) }
	}
	replaced := func(path string) func(string) error {
		return func(dir string) error {
			path := filepath.Join(dir, path)
			return errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path))
		}
	}
	for name, c := range map[string]struct {
		change    func(dir string) error
		untrusted bool
		good      bool
	}{
		"as it is made":                     {func(string) error { return nil }, false, true},
		"a sticky directory above":          {writable("..", os.ModeSticky|0o777), false, true},
		"another's directory":               {given("."), true, false},
		"another's directory above":         {given(".."), true, false},
		"a directory above that all write":  {writable("..", 0o777), true, false},
		"a directory that a group writes":   {writable(".", 0o770), true, false},
		"a sticky directory that all write": {writable(".", os.ModeSticky|0o777), true, false},
		"another's manifest":                {given(FileName), true, false},
		"a manifest that all write":         {writable(FileName, 0o646), true, false},
		"another's directory in it":         {given(recovertest.UUID(1)), true, false},
		"another's disk":                    {given(disk), true, false},
		"another's definition":              {given(filepath.Join(recovertest.UUID(1), DefinitionName)), true, false},
		"a symlink for a directory in it":   {replaced(recovertest.UUID(1)), false, false},
		"a symlink for a disk":              {replaced(disk), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := stored(t)
			recovertest.Must(t, c.change(dir))
			if err := read(dir, ""); (err == nil) != c.good || errors.Is(err, ErrUntrusted) != c.untrusted {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestWhereOthersCanWriteNoBackupIsMade(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		mode os.FileMode
		uid  int
		good bool
	}{
		"root's":                   {0o755, 0, true},
		"one that all write":       {0o777, 0, false},
		"a sticky one":             {os.ModeSticky | 0o777, 0, true},
		"another's":                {0o755, stranger, false},
		"another's that is sticky": {os.ModeSticky | 0o777, stranger, false},
	} {
		recovertest.Must(t, os.Chown(dir, c.uid, -1))
		recovertest.Must(t, os.Chmod(dir, c.mode))
		err := Trusted(filepath.Join(dir, "new", "backup"), "")
		if (err == nil) != c.good || err != nil && !errors.Is(err, ErrUntrusted) {
			t.Errorf("in %s: %v", name, err)
		}
	}
}

func TestARootsSymlinkLeadsToABackupAndAnothersDoesNot(t *testing.T) {
	dir := stored(t)
	link := filepath.Join(t.TempDir(), "link")
	recovertest.Must(t, os.Symlink(dir, link))
	recovertest.Must(t, read(link, ""))
	recovertest.Must(t, os.Lchown(link, stranger, stranger))
	if err := read(link, ""); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another's: %v", err)
	}
}

func TestTheWordOfAnAcceptedOwnerCountsButForADefinition(t *testing.T) {
	dir := stored(t)
	recovertest.Must(t, filepath.WalkDir(filepath.Dir(dir), func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, stranger, stranger))
	}))
	if err := read(dir, ""); !errors.Is(err, ErrUntrusted) {
		t.Errorf("nobody was accepted: %v", err)
	}
	if err := read(dir, "+1234"); !errors.Is(err, ErrUntrusted) {
		t.Errorf("somebody else was accepted: %v", err)
	}
	if err := read(dir, "no such user"); !errors.Is(err, beneath.ErrUnknownName) {
		t.Errorf("a name that nobody has: %v", err)
	}
	recovertest.Must(t, read(dir, "+65534"))
	s, err := Open(dir, "+65534")
	recovertest.Must(t, err)
	defer s.Close()
	if _, err := s.Definition(recovertest.UUID(1)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("its definition: %v", err)
	}
}
