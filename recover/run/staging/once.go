package staging

import "sync"

// Once makes sure that a file that several instances need is restored once per run, and
// that none of them goes on before it is. It is safe for concurrent use.
type Once struct {
	mu   sync.Mutex
	done map[string]*onceFile
}

// NewOnce returns one for a run in which nothing was restored yet.
func NewOnce() *Once { return &Once{done: map[string]*onceFile{}} }

type onceFile struct {
	once sync.Once
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
	f.once.Do(func() { f.err = restore() })
	return f.err
}
