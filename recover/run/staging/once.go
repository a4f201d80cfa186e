package staging

import (
	"sync"
	"sync/atomic"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// Once makes sure that a file that several instances need is restored once per run, and
// that none of them goes on before it is. It is safe for concurrent use.
type Once struct {
	mu    sync.Mutex
	done  map[string]*onceFile
	marks map[string]copier.Mark // of the inodes that files were copied from, by their keys
}

// NewOnce returns one for a run in which nothing was restored yet.
func NewOnce() *Once { return &Once{done: map[string]*onceFile{}, marks: map[string]copier.Mark{}} }

type onceFile struct {
	once sync.Once
	back atomic.Bool
	err  error
}

// Do runs restore for the first caller with that key. The others wait for it, and all get
// its error.
func (s *Once) Do(key string, restore func() error) error {
	s.mu.Lock()
	f, ok := s.done[key]
	if !ok {
		f = &onceFile{}
		s.done[key] = f
	}
	s.mu.Unlock()
	f.once.Do(func() {
		f.err = restore()
		f.back.Store(f.err == nil)
	})
	return f.err
}

// isBack is true when the file with that key was restored.
func (s *Once) isBack(key string) bool {
	s.mu.Lock()
	f, ok := s.done[key]
	s.mu.Unlock()
	return ok && f.back.Load()
}

func (s *Once) noteMark(key string, m copier.Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks[key] = m
}

func (s *Once) mark(key string) (copier.Mark, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.marks[key]
	return m, ok
}
