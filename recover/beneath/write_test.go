package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestAFileIsWrittenInPlaceOfANameAndFollowsNoSymlink(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d secret 0 700", "f secret/file", "d d 65534 755")
	dir, err := root.OpenDir("/d")
	must(t, err)
	defer dir.Close()
	for what, before := range map[string]func(at string) error{
		"nothing":   func(string) error { return nil },
		"a file":    func(at string) error { return os.WriteFile(at, []byte("old"), 0o644) },
		"a symlink": func(at string) error { return os.Symlink("../secret/file", at) },
	} {
		at := filepath.Join(path, "d", "file")
		must(t, before(at))
		must(t, Write(dir, "file", []byte("new")))
		info, err := os.Lstat(at)
		must(t, err)
		if data, err := os.ReadFile(at); string(data) != "new" || err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %q, %v, %v", what, data, info.Mode(), err)
		}
		must(t, os.Remove(at))
	}
	if data, err := os.ReadFile(filepath.Join(path, "secret/file")); string(data) != "secret/file" || err != nil {
		t.Errorf("the file that the symlink led to: %q, %v", data, err)
	}
	must(t, os.Mkdir(filepath.Join(path, "d", "file"), 0o700))
	if err := Write(dir, "file", nil); err == nil {
		t.Error("a directory was replaced")
	}
	if err := Write(dir, "../secret/file", nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a path: %v", err)
	}
	if names, err := dir.Names(); err != nil || len(names) != 1 {
		t.Errorf("left: %q, %v", names, err)
	}
}
