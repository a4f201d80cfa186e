package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestOnlyASymlinkOfRootsToADirectoryOfThisHostIsToBecomeAMount(t *testing.T) {
	root, err := OpenRoot("/")
	must(t, err)
	defer root.Close()
	dir := t.TempDir()
	must(t, os.Chown(dir, nobody, -1)) // others can put symlinks there
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "a b"), 0o755))
	at := func(name string) string { return filepath.Join(dir, name) }
	mount := func(name string) string {
		return "rm " + at(name) + " && mkdir " + at(name) + " && mount --bind " + at("real") + " " + at(name)
	}
	for name, c := range map[string]struct {
		target, mount string
		uid           int
	}{
		"absolute":  {target: at("real"), mount: mount("absolute")},
		"relative":  {target: "real", mount: mount("relative")},
		"planted":   {target: at("real"), uid: nobody},
		"shell":     {target: at("a b")},
		"to-a-file": {target: "/etc/passwd"},
		"nowhere":   {target: at("none")},
	} {
		must(t, os.Symlink(c.target, at(name)))
		must(t, os.Lchown(at(name), c.uid, 0))
		_, err := root.OpenDir(at(name))
		var link *SymlinkError
		if !errors.As(err, &link) || link.Mount != c.mount {
			t.Errorf("%s: %v", name, err)
		}
	}
	inside, err := OpenRoot(dir)
	must(t, err)
	defer inside.Close()
	_, err = inside.OpenDir("/absolute")
	var link *SymlinkError
	if !errors.As(err, &link) || link.Mount != "" {
		t.Errorf("in another root: %v", err)
	}
}
