package console

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover/printable"
)

// backlog is how many bytes may wait while standard error accepts nothing.
const backlog = 4 << 20

// Stderr is a standard error that never makes its writers wait: a terminal
// stopped with Ctrl-S, or a pager that nobody scrolls, must not keep a guest
// paused. It queues all text, and a goroutine writes it out. If too much waits, new
// text is dropped, and a later line says so. Only printable text goes out
// (printable.Block). It is safe for concurrent use.
type Stderr struct {
	mu      sync.Mutex
	changed *sync.Cond
	to      io.Writer
	queue   [][]byte
	waiting int // bytes queued or being written
	dropped int // writes
	closed  bool
}

// NewStderr returns a Stderr that writes to w. Close ends it.
func NewStderr(w io.Writer) *Stderr {
	s := &Stderr{to: w}
	s.changed = sync.NewCond(&s.mu)
	go s.run()
	return s
}

// Write queues p. It never fails and never blocks.
func (s *Stderr) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.waiting+len(p) > backlog {
		s.dropped++
		return len(p), nil
	}
	clean := []byte(printable.Block(string(p)))
	s.queue = append(s.queue, clean)
	s.waiting += len(clean)
	s.changed.Broadcast()
	return len(p), nil
}

// Redirect sends all text that is written from now on to w, and returns a function
// that undoes it. Text that is already queued keeps its old destination.
func (s *Stderr) Redirect(w io.Writer) (undo func()) {
	s.Flush(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.to
	s.to = w
	return func() {
		s.Flush(time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.to = before
	}
}

// Flush waits for at most limit until everything is written out. It returns whether
// it is.
func (s *Stderr) Flush(limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	timer := time.AfterFunc(limit, s.wake)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.waiting > 0 && time.Now().Before(deadline) {
		s.changed.Wait()
	}
	return s.waiting == 0
}

// Close flushes for at most two seconds and ends the goroutine. Later writes are dropped.
func (s *Stderr) Close() {
	s.Flush(2 * time.Second)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wake()
}

// wake takes the lock so that no waiter misses the call between reading the clock and
// waiting.
func (s *Stderr) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

func (s *Stderr) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.queue) == 0 {
			if s.closed {
				return
			}
			s.changed.Wait()
		}
		p, to := s.queue[0], s.to
		s.queue = s.queue[1:]
		s.mu.Unlock()
		_, _ = to.Write(p) // there is nobody left to tell
		s.mu.Lock()
		s.waiting -= len(p)
		if s.dropped > 0 && len(s.queue) == 0 && !s.closed {
			line := fmt.Appendf(nil, "os-rescue: %d log lines were dropped: nobody read them\n", s.dropped)
			s.dropped = 0
			s.queue = append(s.queue, line)
			s.waiting += len(line)
		}
		s.changed.Broadcast()
	}
}
