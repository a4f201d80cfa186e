package recover

import "sync"

// sharedFiles makes sure that a file that several instances need is restored
// once per run, and that nobody goes on before it is.
type sharedFiles struct {
	mu   sync.Mutex
	done map[string]*sharedFile
}

type sharedFile struct {
	once sync.Once
	err  error
}

// once runs do for the first caller with that path; all get its result.
func (s *sharedFiles) once(path string, do func() error) error {
	s.mu.Lock()
	f, ok := s.done[path]
	if !ok {
		f = &sharedFile{}
		s.done[path] = f
	}
	s.mu.Unlock()
	f.once.Do(func() { f.err = do() })
	return f.err
}
