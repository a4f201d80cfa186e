package lyingfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or directory. A file that was opened once keeps its backing
// descriptor until the kernel forgets the inode, so that it outlives its name.
type node struct {
	fs.LoopbackNode
	server *Server

	mu    sync.RWMutex
	truth *os.File // nil until the first open
	stale *os.File // the buffered view; nil while it is the same as the truth
	opens int      // descriptors that the kernel has
	silly string   // the hidden name of a deleted file, in the backing directory
}

var (
	_ fs.NodeWrapChilder = (*node)(nil)
	_ fs.NodeCreater     = (*node)(nil)
	_ fs.NodeOpener      = (*node)(nil)
	_ fs.NodeGetattrer   = (*node)(nil)
	_ fs.NodeSetattrer   = (*node)(nil)
	_ fs.NodeOnForgetter = (*node)(nil)
	_ fs.NodeStatfser    = (*node)(nil)
	_ fs.NodeUnlinker    = (*node)(nil)
)

// WrapChild makes every node of the tree one of ours.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	loopback, ok := ops.(*fs.LoopbackNode)
	if !ok {
		return ops
	}
	return &node{LoopbackNode: fs.LoopbackNode{RootData: loopback.RootData}, server: n.server}
}

// Create makes a file owned by the caller and opens it.
func (n *node) Create(
	ctx context.Context,
	name string,
	flags, mode uint32,
	out *fuse.EntryOut,
) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_DIRECT != 0 && n.server.refuseDirect.Load() {
		return nil, nil, 0, syscall.EINVAL
	}
	path := filepath.Join(n.path(), name)
	truth, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|int(flags)&(os.O_EXCL|os.O_TRUNC), os.FileMode(mode&0o777))
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	if caller, ok := fuse.FromContext(ctx); ok {
		if err := truth.Chown(int(caller.Uid), int(caller.Gid)); err != nil {
			_ = truth.Close()
			return nil, nil, 0, fs.ToErrno(err)
		}
	}
	inode, errno := n.Lookup(ctx, name, out)
	if errno != fs.OK {
		_ = truth.Close()
		return nil, nil, 0, errno
	}
	child := inode.Operations().(*node)
	child.mu.Lock()
	defer child.mu.Unlock()
	if child.truth == nil {
		child.truth = truth
	} else {
		_ = truth.Close()
	}
	h, fuseFlags := child.handle(flags)
	return inode, h, fuseFlags, fs.OK
}

// Open opens a descriptor, which reads the true content if it has O_DIRECT.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_DIRECT != 0 && n.server.refuseDirect.Load() {
		return nil, 0, syscall.EINVAL
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nameless() && (n.server.keepClosed || n.server.forgetful.Load()) {
		return nil, 0, syscall.ESTALE
	}
	if n.truth == nil {
		truth, err := os.OpenFile(n.path(), os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return nil, 0, fs.ToErrno(err)
		}
		n.truth = truth
	}
	h, fuseFlags := n.handle(flags)
	return h, fuseFlags, fs.OK
}

// nameless is true for a file that was opened, and has lost its last name since. The lock is
// held.
func (n *node) nameless() bool {
	var st syscall.Stat_t
	return n.truth != nil && syscall.Fstat(int(n.truth.Fd()), &st) == nil && st.Nlink == 0
}

// forgotten is true for a file that the server does not know any more. The lock is held.
func (n *node) forgotten() bool { return n.server.forgetful.Load() && n.nameless() }

// handle returns a new descriptor. FOPEN_DIRECT_IO keeps the kernel's page cache
// out of a direct one.
func (n *node) handle(flags uint32) (*handle, uint32) {
	n.opens++
	if flags&syscall.O_DIRECT != 0 {
		return &handle{node: n, direct: true}, fuse.FOPEN_DIRECT_IO
	}
	return &handle{node: n}, 0
}

// Unlink removes a name, or hides it (fs/nfs/unlink.c, nfs_sillyrename).
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	inode := n.GetChild(name)
	if !n.server.sillyRename || inode == nil {
		return n.LoopbackNode.Unlink(ctx, name)
	}
	child := inode.Operations().(*node)
	child.mu.Lock()
	defer child.mu.Unlock()
	if child.opens == 0 {
		return n.LoopbackNode.Unlink(ctx, name)
	}
	hidden := fmt.Sprintf(".nfs%016x", inode.StableAttr().Ino)
	if err := os.Rename(filepath.Join(n.path(), name), filepath.Join(n.path(), hidden)); err != nil {
		return fs.ToErrno(err)
	}
	child.silly = filepath.Join(n.path(), hidden)
	n.MvChild(name, n.EmbeddedInode(), hidden, true)
	return fs.OK
}

// closed counts a descriptor that was closed.
func (n *node) closed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opens--; n.opens == 0 && n.silly != "" {
		_ = os.Remove(n.silly)
		n.silly = ""
	}
}

// Getattr asks the open file where there is one: it may have no name any more.
func (n *node) Getattr(ctx context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.server.hang()
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.truth == nil {
		return n.LoopbackNode.Getattr(ctx, nil, out)
	}
	if n.forgotten() {
		return syscall.ESTALE
	}
	return n.getattr(out)
}

// Statx is Getattr for statx(2).
func (n *node) Statx(ctx context.Context, f fs.FileHandle, flags, mask uint32, out *fuse.StatxOut) syscall.Errno {
	n.server.hang()
	return n.LoopbackNode.Statx(ctx, f, flags, mask, out)
}

// Setattr changes owner, mode, times and size. The buffered view is cut or grown
// with the truth, except by a direct descriptor.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.mu.RLock()
	opened := n.truth != nil
	n.mu.RUnlock()
	if !opened {
		return n.LoopbackNode.Setattr(ctx, nil, in, out)
	}
	if size, ok := in.GetSize(); ok {
		h, ok := f.(*handle)
		if !ok {
			h = &handle{node: n}
		}
		if errno := h.change(func(f *os.File) error { return f.Truncate(int64(size)) }); errno != fs.OK {
			return errno
		}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	fd := int(n.truth.Fd())
	if mode, ok := in.GetMode(); ok {
		if err := syscall.Fchmod(fd, mode&0o7777); err != nil {
			return fs.ToErrno(err)
		}
	}
	uid, uidSet := in.GetUID()
	gid, gidSet := in.GetGID()
	if uidSet || gidSet {
		u, g := -1, -1
		if uidSet {
			u = int(uid)
		}
		if gidSet {
			g = int(gid)
		}
		if err := syscall.Fchown(fd, u, g); err != nil {
			return fs.ToErrno(err)
		}
	}
	if errno := n.setTimes(in); errno != fs.OK {
		return errno
	}
	return n.getattr(out)
}

func (n *node) setTimes(in *fuse.SetAttrIn) syscall.Errno {
	atime, atimeSet := in.GetATime()
	mtime, mtimeSet := in.GetMTime()
	if !atimeSet && !mtimeSet {
		return fs.OK
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if atimeSet {
		times[0] = unix.NsecToTimespec(atime.UnixNano())
	}
	if mtimeSet {
		times[1] = unix.NsecToTimespec(mtime.UnixNano())
	}
	return fs.ToErrno(unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", n.truth.Fd()), times, 0))
}

func (n *node) getattr(out *fuse.AttrOut) syscall.Errno {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(n.truth.Fd()), &st); err != nil {
		return fs.ToErrno(err)
	}
	out.FromStat(&st)
	return fs.OK
}

// Statfs answers for a file without a name too.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	var st syscall.Statfs_t
	if err := syscall.Statfs(n.RootData.Path, &st); err != nil {
		return fs.ToErrno(err)
	}
	out.FromStatfsT(&st)
	return fs.OK
}

// OnForget closes the backing file: neither a name nor a descriptor is left, or the
// kernel needed the memory.
func (n *node) OnForget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range []*os.File{n.truth, n.stale} {
		if f != nil {
			_ = f.Close()
		}
	}
	n.truth, n.stale = nil, nil
}

// path is the node's path in the backing directory.
func (n *node) path() string {
	return filepath.Join(n.RootData.Path, n.Path(n.Root()))
}
