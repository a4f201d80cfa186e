package lyingfs

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Options select the faults of the file system.
type Options struct {
	// RefuseDirect makes every open with O_DIRECT fail with EINVAL.
	RefuseDirect bool
	// SillyRename keeps a file that is deleted while it is open under a hidden name
	// in its directory until it is closed, as an NFS client does.
	SillyRename bool
	// KeepClosed makes every open of a file without a name fail with ESTALE, as GlusterFS
	// does with one that another client has deleted: descriptors go on working.
	KeepClosed bool
}

// Server is one mounted lying file system.
type Server struct {
	dir          string
	fuse         *fuse.Server
	refuseDirect atomic.Bool
	sillyRename  bool
	keepClosed   bool
	forgetful    atomic.Bool
	hanging      atomic.Pointer[chan struct{}]
}

// Mount mounts the file system on dir, an existing directory, with the content
// of backing, another existing directory that nothing else may change meanwhile.
// It opens /dev/fuse and calls mount(2) itself, so it needs root and no helper
// program. The caller ends it with Unmount.
func Mount(dir, backing string, opts Options) (*Server, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, fmt.Errorf("backing directory %s: %w", backing, err)
	}
	s := &Server{dir: dir, sillyRename: opts.SillyRename, keepClosed: opts.KeepClosed}
	s.refuseDirect.Store(opts.RefuseDirect)
	root := &fs.LoopbackRoot{Path: backing, Dev: uint64(st.Dev)} //nolint:unconvert // narrower on other architectures
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: root}, server: s}
	root.RootNode = top

	// Names and attributes are asked for every time: only content lies.
	var never time.Duration
	server, err := fs.Mount(dir, top, &fs.Options{
		EntryTimeout:    &never,
		AttrTimeout:     &never,
		NegativeTimeout: &never,
		NullPermissions: true,
		MountOptions: fuse.MountOptions{
			AllowOther:        true,
			DirectMountStrict: true,
			DisableXAttrs:     true,
			FsName:            "lyingfs",
			Name:              "lyingfs",
			MaxWrite:          fuse.MAX_KERNEL_WRITE,
			DisableSplice:     true, // a splice can't take a whole write, and logs that each time
			Options:           []string{"default_permissions"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, err)
	}
	s.fuse = server
	return s, nil
}

// RefuseDirect turns the refusal of new O_DIRECT opens on or off.
func (s *Server) RefuseDirect(refuse bool) { s.refuseDirect.Store(refuse) }

// Forget makes everything that is done to a file without a name fail with ESTALE, on the
// descriptors that are open as well: an NFSv3 server does not know who has a file open.
func (s *Server) Forget() { s.forgetful.Store(true) }

// Hang makes the file system answer no question about a file until answer is called, as a dead
// NFS server.
func (s *Server) Hang() (answer func()) {
	dead := make(chan struct{})
	s.hanging.Store(&dead)
	return func() {
		if s.hanging.CompareAndSwap(&dead, nil) {
			close(dead)
		}
	}
}

// hang returns when the file system answers.
func (s *Server) hang() {
	if dead := s.hanging.Load(); dead != nil {
		<-*dead
	}
}

// Unmount ends the file system, also while it is in use: what is still open fails
// with ENOTCONN from then on. A process that serves a file system and has files
// open on it must call it before it ends, or its end waits for itself.
func (s *Server) Unmount() error {
	if err := unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	s.fuse.Wait()
	return nil
}

// Wait returns when anybody has unmounted the file system.
func (s *Server) Wait() { s.fuse.Wait() }

// snapshot returns a new file without a name in dir that holds from's content,
// holes kept.
func snapshot(dir string, from *os.File) (*os.File, error) {
	to, err := os.CreateTemp(dir, ".lyingfs-stale-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(to.Name()); err != nil {
		_ = to.Close()
		return nil, err
	}
	if err := copyData(to, from); err != nil {
		_ = to.Close()
		return nil, err
	}
	return to, nil
}
