package recovertest

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Shelf is systemd's descriptor store as the guard sees it.
type Shelf struct {
	mu    sync.Mutex
	files map[string]*os.File
}

// NewShelf returns an empty store.
func NewShelf() *Shelf { return &Shelf{files: map[string]*os.File{}} }

// StoreFD keeps a duplicate under a name that is not taken.
func (s *Shelf) StoreFD(name string, f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[name] != nil {
		return fmt.Errorf("%s is there already", name)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.files[name] = os.NewFile(uintptr(fd), name)
	return nil
}

// RemoveFD closes what is kept under a name.
func (s *Shelf) RemoveFD(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[name]
	delete(s.files, name)
	return f.Close()
}

// Inherit is what a new life of the service gets: duplicates of all that is kept.
func (s *Shelf) Inherit(t testing.TB) (all []*os.File) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		Must(t, err)
		all = append(all, os.NewFile(uintptr(fd), name))
	}
	return all
}

// Buffer is a bytes.Buffer for several goroutines.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (s *Buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String is all that was written.
func (s *Buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
