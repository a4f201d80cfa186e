package pin

import (
	"sync"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// sources are the open inodes that a run copies from, by key.
type sources struct {
	mu   sync.Mutex
	open map[string]copier.Source
}

// add takes an open inode over, and returns the one that there is of that key now.
func (s *sources) add(key string, src copier.Source) copier.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.open[key]; ok {
		src.File.Close()
		return have
	}
	s.open[key] = src
	return src
}

func (s *sources) get(key string) (copier.Source, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src, ok := s.open[key]
	return src, ok
}

// drop closes one inode.
func (s *sources) drop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src, ok := s.open[key]; ok {
		src.File.Close()
		delete(s.open, key)
	}
}

// close closes them all.
func (s *sources) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, src := range s.open {
		src.File.Close()
		delete(s.open, key)
	}
}
