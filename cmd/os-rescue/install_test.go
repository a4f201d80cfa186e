package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMain is the program itself, where this binary is called by its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "os-rescue" {
		main()
	}
	os.Exit(m.Run())
}

func TestWhatIsInstalledDoesNotDependOnTheUmask(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, dest := filepath.Join(t.TempDir(), "os-rescue"), filepath.Join(t.TempDir(), "dest")
	if err := os.Symlink(self, binary); err != nil {
		t.Fatal(err)
	}
	for _, read := range []string{"Makefile", "etc/os-rescue.yaml"} { // or go test takes the result from its cache
		if _, err := os.ReadFile(filepath.Join("../..", read)); err != nil {
			t.Fatal(err)
		}
	}
	// Twice: what an earlier installation has left private is set right.
	for range 2 {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `umask 077; exec make -s -C ../.. -o build install `+
			`PREFIX=/usr/local SYSCONFDIR=/etc UNITDIR=/usr/local/lib/systemd/system BINARY="$0" DESTDIR="$1"`, binary, dest)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make install: %v\n%s", err, out)
		}
		n := 0
		err = filepath.WalkDir(dest, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == dest {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			want := fs.FileMode(0o644)
			if entry.IsDir() || path == dest+"/usr/local/sbin/os-rescue" {
				want = 0o755
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
			}
			n++
			if entry.IsDir() || filepath.Ext(path) == ".yaml" { // the operator's, once they are there
				return nil
			}
			return os.Chmod(path, 0o600)
		})
		if err != nil || n < 30 {
			t.Fatalf("%d files and directories are installed: %v", n, err)
		}
	}
}
