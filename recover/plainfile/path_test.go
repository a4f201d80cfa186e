package plainfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

const nobody = 65534

func TestADirectoryIsOursOnlyAlongItsWholePath(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"root's":                        {"a/b", nil},
		"not there yet":                 {"a/c/d", nil},
		"in a sticky directory":         {"tmp/ours", nil},
		"somebody's in a sticky one":    {"tmp/theirs", plainfile.ErrNotOurs},
		"not there, in a sticky one":    {"tmp/none", nil},
		"somebody's":                    {"theirs", plainfile.ErrNotOurs},
		"in somebody's":                 {"theirs/ours", plainfile.ErrNotOurs},
		"not there, in somebody's":      {"theirs/none/none", plainfile.ErrNotOurs},
		"the group may write it":        {"group", plainfile.ErrNotOurs},
		"root's group may write it":     {"root's group", nil},
		"in what all may write":         {"all/ours", plainfile.ErrNotOurs},
		"a symlink":                     {"link", plainfile.ErrNoDirectory},
		"behind a symlink":              {"link/b", nil},
		"behind a symlink to theirs":    {"link to theirs/ours", plainfile.ErrNotOurs},
		"behind somebody's symlink":     {"their link/b", plainfile.ErrNotOurs},
		"behind one that leads nowhere": {"dangling/b", os.ErrNotExist},
		"a file":                        {"file", plainfile.ErrNoDirectory},
		"a FIFO":                        {"fifo", plainfile.ErrNoDirectory},
		"below a file":                  {"file/b", unix.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in := func(name string) string { return filepath.Join(dir, name) }
			for _, d := range []string{"a/b", "tmp/ours", "tmp/theirs", "theirs/ours", "group", "root's group", "all/ours"} {
				must(t, os.MkdirAll(in(d), 0o755))
			}
			must(t, unix.Chmod(in("tmp"), 0o1777), os.Chmod(in("group"), 0o775), os.Chown(in("group"), 0, nobody),
				os.Chmod(in("root's group"), 0o775), os.Chmod(in("all"), 0o777),
				os.Chown(in("theirs"), nobody, nobody), os.Chown(in("tmp/theirs"), nobody, nobody),
				os.Symlink("a", in("link")), os.Symlink("theirs", in("link to theirs")), os.Symlink("a", in("their link")),
				os.Lchown(in("their link"), nobody, nobody), os.Symlink("nowhere", in("dangling")),
				os.WriteFile(in("file"), nil, 0o600), unix.Mkfifo(in("fifo"), 0o600))
			if err := plainfile.OursAlong(in(c.path)); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}
