package beneath

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"testing"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func openTestDir(t *testing.T) (*Dir, string) {
	t.Helper()
	root, path := testRoot(t)
	dir, err := root.OpenDir("/")
	must(t, err)
	t.Cleanup(func() { dir.Close() })
	return dir, path
}

func TestOpenTakesRegularFilesOnly(t *testing.T) {
	dir, path := openTestDir(t)
	build(t, path, "f file", "d dir 0 755", "l link 0 file")
	must(t, unix.Mkfifo(path+"/fifo", 0o666))
	must(t, unix.Mknod(path+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path + "/socket"}))

	for _, tc := range []struct {
		name  string
		flags int
		want  error
	}{
		{"file", os.O_RDONLY, nil},
		{"file", os.O_RDWR, nil},
		{"file", os.O_RDONLY | unix.O_DIRECT, nil},
		{"file", os.O_RDWR | os.O_TRUNC, fs.ErrInvalid},
		{"new", os.O_RDWR | os.O_CREATE, fs.ErrInvalid},
		{"none", os.O_RDONLY, fs.ErrNotExist},
		{"link", os.O_RDONLY, ErrSymlink},
		{"fifo", os.O_RDONLY, ErrNotRegular},
		{"fifo", os.O_WRONLY, ErrNotRegular},
		{"null", os.O_RDWR, ErrNotRegular},
		{"socket", os.O_RDWR, ErrNotRegular},
		{"dir", os.O_RDONLY, ErrNotRegular},
		{"dir", os.O_RDWR, ErrNotRegular},
		{"dir/x", os.O_RDONLY, fs.ErrInvalid},
		{"..", os.O_RDONLY, fs.ErrInvalid},
		{"", os.O_RDONLY, fs.ErrInvalid},
	} {
		f, err := dir.Open(tc.name, tc.flags)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("Open(%q, %#x): %v, want %v", tc.name, tc.flags, err, tc.want)
		}
		if err == nil {
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
			must(t, err)
			if mask := unix.O_ACCMODE | unix.O_DIRECT | unix.O_NONBLOCK; flags&mask != tc.flags&mask {
				t.Errorf("Open(%q, %#x) has the flags %#x", tc.name, tc.flags, flags)
			}
			f.Close()
		}
	}
}

func TestEveryMethodRefusesWhatIsNoName(t *testing.T) {
	dir, _ := openTestDir(t)
	for _, name := range []string{"", ".", "..", "a/b", "/a", "../a", "a\x00"} {
		_, openErr := dir.Open(name, 0)
		_, createErr := dir.Create(name)
		_, mkdirErr := dir.Mkdir(name, Owner{})
		_, subdirErr := dir.Subdir(name)
		_, statErr := dir.Stat(name)
		_, lockErr := Lock(t.Context(), dir, name, Owner{})
		for i, err := range []error{openErr, createErr, mkdirErr, subdirErr, statErr, lockErr, dir.Remove(name), dir.RemoveDir(name),
			Publish(dir, name, dir, "x"), Publish(dir, "x", dir, name), MoveAside(dir, "x", name)} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q, method %d: %v", name, i, err)
			}
		}
	}
}

func TestCreateRemoveAndNames(t *testing.T) {
	dir, path := openTestDir(t)
	f, err := dir.Create("a")
	must(t, err)
	f.Close()
	wantOwner(t, path+"/a", 0, 0, 0o600)
	sub, err := dir.Mkdir("d", Owner{UID: nobody, GID: 7, Mode: 0o711})
	must(t, err)
	sub.Close()
	wantOwner(t, path+"/d", nobody, 7, 0o711)
	for range 2 { // the second look sees as much as the first
		names, err := dir.Names()
		must(t, err)
		slices.Sort(names)
		if !slices.Equal(names, []string{"a", "d"}) {
			t.Errorf("names %q", names)
		}
	}
	if err := dir.Remove("d"); !errors.Is(err, unix.EISDIR) {
		t.Errorf("Remove of a directory: %v", err)
	}
	if err := dir.RemoveDir("a"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("RemoveDir of a file: %v", err)
	}
	must(t, errors.Join(dir.Remove("a"), dir.RemoveDir("d"), dir.Sync()))
	if err := dir.Remove("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing: %v", err)
	}
	space, err := dir.Statfs()
	must(t, err)
	if space.Total == 0 || space.Free > space.Total || space.Magic == 0 {
		t.Errorf("Statfs: %+v", space)
	}
}

func TestSetOwnerSetsOwnerAndModeByDescriptor(t *testing.T) {
	dir, path := openTestDir(t)
	f, err := dir.Create("a")
	must(t, err)
	defer f.Close()
	must(t, os.Rename(path+"/a", path+"/b"))
	build(t, path, "f a")
	must(t, SetOwner(f, Owner{UID: nobody, GID: 107, Mode: 0o640 | fs.ModeSetuid}))
	wantOwner(t, path+"/b", nobody, 107, 0o4640)
	wantOwner(t, path+"/a", 0, 0, 0o644)
	for _, o := range []Owner{{UID: ^uint32(0)}, {GID: ^uint32(0)}, {Mode: fs.ModeDir | 0o755}} {
		if err := SetOwner(f, o); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("SetOwner(%v): %v", o, err)
		}
	}
	wantOwner(t, path+"/b", nobody, 107, 0o4640)
}

// noFlags is a FUSE file system whose rename takes no flags, like NFS and CephFS.
type noFlags struct {
	fusefs.LoopbackNode
	links bool
}

func (n *noFlags) WrapChild(context.Context, fusefs.InodeEmbedder) fusefs.InodeEmbedder {
	return &noFlags{LoopbackNode: fusefs.LoopbackNode{RootData: n.RootData}, links: n.links}
}

func (n *noFlags) Rename(ctx context.Context, name string, parent fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags != 0 {
		return syscall.EINVAL
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *noFlags) Link(ctx context.Context, target fusefs.InodeEmbedder, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if !n.links {
		return nil, syscall.EPERM
	}
	return n.LoopbackNode.Link(ctx, target, name, out)
}

func mountNoFlags(t *testing.T, links bool) (*Dir, string) {
	t.Helper()
	_, path := openTestDir(t)
	data := &fusefs.LoopbackRoot{Path: path}
	data.RootNode = &noFlags{LoopbackNode: fusefs.LoopbackNode{RootData: data}, links: links}
	mountpoint := t.TempDir()
	server, err := fusefs.Mount(mountpoint, data.RootNode, &fusefs.Options{})
	if err != nil {
		t.Fatalf("this test mounts a FUSE file system (package fuse3, /dev/fuse): %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount %s: %v", mountpoint, err)
		}
	})
	root, err := OpenRoot(mountpoint)
	must(t, err)
	dir, err := root.OpenDir("/")
	must(t, err)
	t.Cleanup(func() { dir.Close(); root.Close() })
	return dir, path
}

func TestPublishNeverReplaces(t *testing.T) {
	for name, setup := range map[string]func(*testing.T) (*Dir, string){
		"rename without replacing":             openTestDir,
		"link and unlink, on NFS's and FUSE's": func(t *testing.T) (*Dir, string) { return mountNoFlags(t, true) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := setup(t)
			build(t, path, "f a", "f b", "d d 0 755", "l l 0 nowhere", "d to 0 755")
			to, err := dir.Subdir("to")
			must(t, err)
			defer to.Close()
			for _, name := range []string{"a", "b", "d", "l"} {
				if err := Publish(dir, "a", dir, name); !errors.Is(err, fs.ErrExist) {
					t.Errorf("onto %s: %v, want fs.ErrExist", name, err)
				}
			}
			must(t, Publish(dir, "a", to, "disk"))
			must(t, MoveAside(dir, "b", "b.aside"))
			for p, want := range map[string]string{"to/disk": "a", "b.aside": "b"} {
				got, err := os.ReadFile(path + "/" + p)
				must(t, err)
				if string(got) != want {
					t.Errorf("%s has %q, want %q", p, got, want)
				}
			}
			names, err := dir.Names()
			must(t, err)
			slices.Sort(names)
			if want := []string{"b.aside", "d", "l", "to"}; !slices.Equal(names, want) {
				t.Errorf("left %q, want %q", names, want)
			}
			if err := Publish(dir, "none", to, "x"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("of nothing: %v", err)
			}
		})
	}
}

func TestPublishFinishesALinkThatWasInterrupted(t *testing.T) {
	dir, path := mountNoFlags(t, true)
	build(t, path, "f staged")
	must(t, os.Link(path+"/staged", path+"/disk"))
	must(t, Publish(dir, "staged", dir, "disk"))
	names, err := dir.Names()
	must(t, err)
	if !slices.Equal(names, []string{"disk"}) {
		t.Errorf("left %q", names)
	}
}

func TestPublishSaysWhereItCannotBeSafe(t *testing.T) {
	for _, links := range []bool{false, true} {
		dir, path := mountNoFlags(t, links)
		build(t, path, "f a", "d d 0 755")
		from := "a"
		if links {
			from = "d" // directories have no links
		}
		if err := Publish(dir, from, dir, "new"); !errors.Is(err, ErrCannotPublish) {
			t.Errorf("links %v: %v, want ErrCannotPublish", links, err)
		}
		if _, err := dir.Stat(from); err != nil {
			t.Error(err)
		}
	}
}

func TestPublishToAnotherFileSystemIsAnError(t *testing.T) {
	dir, path := openTestDir(t)
	build(t, path, "f a")
	other, err := OpenRoot("/dev/shm")
	must(t, err)
	defer other.Close()
	shm, err := other.OpenDir("/")
	must(t, err)
	defer shm.Close()
	if err := Publish(dir, "a", shm, "os-rescue-test-never-made"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("got %v", err)
	}
}
