package procfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/procfs"
)

func TestNamesOfOneFileHaveOneCanonicalPath(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"i/_base", "i/u", "data/moved"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"srv": "i", "abs": "/i", "i/linked": "../data/moved", "i/here": "_base/x", "i/gone": "/nowhere/x", "loop": "loop", "out": "../../../../i",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := procfs.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for path, want := range map[string]string{
		"/i/_base/x":            "/i/_base/x",
		"/i/u/../_base/x":       "/i/_base/x",
		"/i/deleted/../_base/x": "/i/_base/x",
		"//i/./_base//x":        "/i/_base/x",
		"/srv/_base/x":          "/i/_base/x",
		"/abs/_base/x":          "/i/_base/x",
		"/i/here":               "/i/_base/x",
		"/i/gone":               "/nowhere/x",
		"/out/_base/x":          "/i/_base/x", // nothing leads out of the root
		"/i/linked/../_base/x":  "/data/_base/x",
		"/../..":                "/",
	} {
		if got, err := root.Canonical(path); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", path, got, err, want)
		}
	}
	if _, err := root.Canonical("/loop/x"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
}
