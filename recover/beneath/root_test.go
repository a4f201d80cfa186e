package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// testRoot returns a temporary directory as a Root, and its path.
func testRoot(t *testing.T) (*Root, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files to other users and must run as root")
	}
	path := t.TempDir()
	must(t, os.Chmod(path, 0o755))
	root, err := OpenRoot(path)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	return root, path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// build makes an entry for each line: "d PATH UID MODE", "l PATH UID TARGET" or "f PATH".
func build(t *testing.T, root string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		f := strings.Fields(line)
		path := filepath.Join(root, f[1])
		var uid int
		if len(f) > 2 {
			_, err := fmt.Sscan(f[2], &uid)
			must(t, err)
		}
		switch f[0] {
		case "d":
			must(t, os.Mkdir(path, 0o700))
			must(t, os.Chown(path, uid, uid))
			var mode uint32
			_, err := fmt.Sscanf(f[3], "%o", &mode)
			must(t, err)
			must(t, unix.Chmod(path, mode))
		case "l":
			must(t, os.Symlink(f[3], path))
			must(t, os.Lchown(path, uid, uid))
		case "f":
			must(t, os.WriteFile(path, []byte(f[1]), 0o644))
		}
	}
}

func TestASymlinkIsFollowedOnlyWhereRootAloneCanHaveMadeIt(t *testing.T) {
	for _, tc := range []struct {
		name    string
		tree    []string
		open    string
		want    string // where the walk ends
		err     error
		symlink string // the one that is refused
	}{
		{
			name: "an administrator's absolute link",
			tree: []string{"d srv 0 755", "d srv/nova 65534 755", "d var 0 755", "l var/nova 0 /srv/nova"},
			open: "/var/nova",
			want: "/srv/nova",
		},
		{
			name: "an administrator's relative link",
			tree: []string{"d srv 0 755", "d srv/nova 65534 755", "d var 0 755", "l var/nova 0 ../srv/nova"},
			open: "/var/nova",
			want: "/srv/nova",
		},
		{"a link to a link", []string{"d c 0 755", "l b 0 c", "l a 0 /b"}, "/a", "/c", nil, ""},
		{"dots above the root stay in it", []string{"d etc 0 755", "l a 0 ../../../../etc"}, "/a", "/etc", nil, ""},
		{"an absolute target is the root's, not ours", []string{"d proc 0 755", "l a 0 /proc"}, "/a", "/proc", nil, ""},
		{"another user's link", []string{"d srv 0 755", "l a 65534 srv"}, "/a", "", ErrSymlink, "/a"},
		{"in another user's directory", []string{"d d 65534 755", "d d/x 0 755", "l d/a 0 x"}, "/d/a", "", ErrSymlink, "/d/a"},
		{"in a directory the group can write", []string{"d d 0 775", "d d/x 0 755", "l d/a 0 x"}, "/d/a", "", ErrSymlink, "/d/a"},
		{"in a sticky directory", []string{"d d 0 1777", "d d/x 0 755", "l d/a 0 x"}, "/d/a", "", ErrSymlink, "/d/a"},
		{
			name:    "in root's directory that another user can move",
			tree:    []string{"d d 65534 755", "d d/r 0 755", "d d/r/x 0 755", "l d/r/a 0 x"},
			open:    "/d/r/a",
			err:     ErrSymlink,
			symlink: "/d/r/a",
		},
		{"behind a link that is trusted", []string{"d d 65534 755", "l d/a 0 /", "l ok 0 d"}, "/ok/a", "", ErrSymlink, "/d/a"},
		{"a link to itself", []string{"l a 0 a"}, "/a", "", unix.ELOOP, ""},
		{"a link to nothing", []string{"l a 0 b"}, "/a", "", fs.ErrNotExist, ""},
		{"nothing at all", nil, "/a/b", "", fs.ErrNotExist, ""},
		{"a file in the way", []string{"f a"}, "/a/b", "", unix.ENOTDIR, ""},
		{"dots in the path", []string{"d a 0 755"}, "/a/../a", "", fs.ErrInvalid, ""},
		{"a relative path", []string{"d a 0 755"}, "a", "", fs.ErrInvalid, ""},
		{"a zero byte in the path", nil, "/a\x00b", "", fs.ErrInvalid, ""},
		{"the root itself", nil, "/", "/", nil, ""},
		{"more slashes than needed", []string{"d a 0 755", "d a/b 0 755"}, "//a/./b/", "/a/b", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, path := testRoot(t)
			build(t, path, tc.tree...)
			dir, err := root.OpenDir(tc.open)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("OpenDir(%q): error %v, want %v", tc.open, err, tc.err)
			}
			var link *SymlinkError
			if errors.As(err, &link) != (tc.symlink != "") || link != nil && link.Path != tc.symlink {
				t.Errorf("the symlink refused is %+v, want %q", link, tc.symlink)
			}
			if err != nil {
				return
			}
			defer dir.Close()
			if dir.Path() != tc.want {
				t.Errorf("the walk ended at %q, want %q", dir.Path(), tc.want)
			}
			want, err := os.Stat(filepath.Join(path, tc.want))
			must(t, err)
			got, err := dir.Info()
			must(t, err)
			if got.Ino != want.Sys().(*syscall.Stat_t).Ino {
				t.Errorf("another directory than %s was opened", tc.want)
			}
		})
	}
}

// asNobody runs a shell command as a user that can write the directory.
func asNobody(t *testing.T, dir, command string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "DIR=" + dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as uid %d: %s: %v: %s", nobody, command, err, out)
	}
}

func TestASymlinkPlantedByTheOwnerOfTheTreeIsRefusedAtEveryLevel(t *testing.T) {
	root, path := testRoot(t)
	// Every directory above must let the other user through.
	for dir := filepath.Dir(path); len(dir) > len("/tmp"); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	build(t, path, "d secret 0 700", "d secret/sub 0 700", "f secret/disk", "d instances 65534 755", "d instances/good 65534 755")
	asNobody(t, path, `
		ln -s ../secret "$DIR/instances/uuid"
		ln -s `+path+`/secret "$DIR/instances/_base"
		ln -s ../../secret/disk "$DIR/instances/good/disk"`)

	wantRefused := func(what string, err error) {
		t.Helper()
		var link *SymlinkError
		if !errors.As(err, &link) || link.UID != nobody || !strings.Contains(link.Target, "secret") {
			t.Errorf("%s: got %v, want the planted symlink named and refused", what, err)
		}
	}
	for _, p := range []string{"/instances/uuid", "/instances/uuid/sub", "/instances/_base"} {
		_, err := root.OpenDir(p)
		wantRefused("OpenDir "+p, err)
		_, created, err := root.MkdirAll(p+"/new", func(string) Owner { return Owner{} })
		wantRefused("MkdirAll "+p+"/new", err)
		if len(created) > 0 {
			t.Errorf("MkdirAll made %q", created)
		}
		_, err = root.Lstat(p + "/sub/x")
		wantRefused("Lstat below "+p, err)
	}
	instances, err := root.OpenDir("/instances")
	must(t, err)
	defer instances.Close()
	_, err = instances.Subdir("uuid")
	wantRefused("Subdir", err)
	if _, err := instances.Mkdir("uuid", Owner{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Mkdir over a symlink: %v", err)
	}
	good, err := instances.Subdir("good")
	must(t, err)
	defer good.Close()
	_, err = good.Open("disk", os.O_RDWR)
	wantRefused("Open", err)
	if _, err := good.Create("disk"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a symlink: %v", err)
	}
	st, err := root.Lstat("/instances/good/disk")
	must(t, err)
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Error("Lstat followed the last component")
	}
}

func TestSwappingADirectoryForASymlinkNeverLeadsOutside(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d secret 0 755", "d instances 65534 755", "d instances/uuid 65534 755", "l instances/evil 65534 ../secret")
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			uuid, evil := path+"/instances/uuid", path+"/instances/evil"
			if err := unix.Renameat2(unix.AT_FDCWD, uuid, unix.AT_FDCWD, evil, unix.RENAME_EXCHANGE); err != nil {
				done <- err
				return
			}
		}
	}()
	opened := 0
	owner := func(string) Owner { return Owner{UID: nobody, GID: nobody, Mode: 0o755} }
	for i := range 3000 {
		dir, _, err := root.MkdirAll(fmt.Sprintf("/instances/uuid/%d", i), owner)
		if err == nil {
			opened++
			f, err := dir.Create("disk")
			must(t, err)
			f.Close()
			dir.Close()
		} else if !errors.Is(err, ErrSymlink) && !errors.Is(err, errChanged) {
			t.Errorf("MkdirAll: %v", err)
		}
	}
	close(stop)
	must(t, <-done)
	names, err := os.ReadDir(path + "/secret")
	must(t, err)
	if len(names) > 0 {
		t.Errorf("%d of %d got out", len(names), opened)
	}
}

func TestAnOpenDirectoryStaysTheSameWhenItsPathIsReplaced(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d secret 0 755", "d i 65534 755")
	dir, err := root.OpenDir("/i")
	must(t, err)
	defer dir.Close()
	must(t, os.Rename(path+"/i", path+"/moved"))
	build(t, path, "l i 65534 secret")
	f, err := dir.Create("disk")
	must(t, err)
	f.Close()
	if _, err := os.Lstat(path + "/moved/disk"); err != nil {
		t.Error(err)
	}
}

func TestMkdirAllMakesWhatIsMissingWithItsOwners(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d var 0 755", "l var/nova 0 /srv/nova", "d srv 0 755")
	var asked []string
	owner := func(p string) Owner {
		asked = append(asked, p)
		return Owner{UID: nobody, GID: 7, Mode: 0o750 | fs.ModeSetgid}
	}
	dir, created, err := root.MkdirAll("/var/nova/instances/uuid", owner)
	must(t, err)
	dir.Close()
	if want := []string{"/var/nova", "/var/nova/instances", "/var/nova/instances/uuid"}; !slices.Equal(asked, want) {
		t.Errorf("owners were asked for %q, want %q", asked, want)
	}
	if want := []string{"/srv/nova", "/srv/nova/instances", "/srv/nova/instances/uuid"}; !slices.Equal(created, want) {
		t.Errorf("created %q, want %q", created, want)
	}
	for _, p := range created {
		wantOwner(t, path+p, nobody, 7, 0o2750)
	}
	dir, created, err = root.MkdirAll("/var/nova/instances/uuid", owner)
	must(t, err)
	dir.Close()
	if len(created) != 0 {
		t.Errorf("the second time it made %q", created)
	}
	wantOwner(t, path+"/srv", 0, 0, 0o755)
}

func TestADirectoryInOneWithTheSetGroupIDBitGetsItToo(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d i 0 755")
	must(t, os.Chmod(path+"/i", 0o755|fs.ModeSetgid))
	dir, _, err := root.MkdirAll("/i/a/b", func(string) Owner { return Owner{UID: nobody, GID: 7, Mode: 0o750} })
	must(t, err)
	dir.Close()
	for _, p := range []string{"/i/a", "/i/a/b"} {
		wantOwner(t, path+p, nobody, 7, 0o2750)
	}
}

// TestManyWhoMakeOneDirectoryAtOnceAllGetIt: hosts that share a tree begin at the same time.
func TestManyWhoMakeOneDirectoryAtOnceAllGetIt(t *testing.T) {
	root, path := testRoot(t)
	owner := func(string) Owner { return Owner{UID: nobody, GID: nobody, Mode: 0o755} }
	for i := range 200 {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				dir, _, err := root.MkdirAll(fmt.Sprintf("/instances-%d/_base", i), owner)
				if err != nil {
					t.Error(err)
					return
				}
				dir.Close()
			})
		}
		all.Wait()
		wantOwner(t, fmt.Sprintf("%s/instances-%d/_base", path, i), nobody, nobody, 0o755)
	}
}

func TestMkdirAllFinishesADirectoryThatAKilledOneLeftBehind(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d i 65534 755", "d i/left 0 700", "d i/used 0 700", "d i/used/x 0 700")
	for p, uid := range map[string]int{"/i/left": nobody, "/i/used": 0} {
		dir, created, err := root.MkdirAll(p, func(string) Owner { return Owner{UID: nobody, GID: nobody, Mode: 0o700} })
		must(t, err)
		dir.Close()
		if len(created) > 0 {
			t.Errorf("it says it made %q", created)
		}
		wantOwner(t, path+p, uid, uid, 0o700)
	}
}

func TestMkdirAllSaysWhatItMadeWhenItFails(t *testing.T) {
	root, _ := testRoot(t)
	_, created, err := root.MkdirAll("/a/b/c", func(p string) Owner {
		if p == "/a/b" {
			return Owner{UID: ^uint32(0)}
		}
		return Owner{Mode: 0o755}
	})
	if !errors.Is(err, fs.ErrInvalid) || !slices.Equal(created, []string{"/a", "/a/b"}) {
		t.Errorf("created %q, error %v", created, err)
	}
}

func TestWalksLeaveNoDescriptorBehind(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d a 0 755", "d a/b 0 755", "f a/f", "l a/l 65534 b", "l ok 0 a/b")
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(fds)
	}
	before := count()
	for _, p := range []string{"/a/b", "/a/f", "/a/l", "/ok", "/none/x", "/", "/a/b/new", "/a/f/new"} {
		if dir, err := root.OpenDir(p); err == nil {
			dir.Close()
		}
		if dir, _, err := root.MkdirAll(p, func(string) Owner { return Owner{Mode: 0o755} }); err == nil {
			dir.Close()
		}
		root.Lstat(p)
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func wantOwner(t *testing.T, path string, uid, gid int, mode uint32) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	if int(st.Uid) != uid || int(st.Gid) != gid || st.Mode&0o7777 != mode {
		t.Errorf("%s is %d:%d %04o, want %d:%d %04o", path, st.Uid, st.Gid, st.Mode&0o7777, uid, gid, mode)
	}
}
