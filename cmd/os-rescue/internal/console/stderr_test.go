package console

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// stuck is a writer that takes nothing until it is released.
type stuck struct {
	release chan struct{}
	mu      sync.Mutex
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(p)
}

func TestAStandardErrorThatNobodyReadsMakesNobodyWait(t *testing.T) {
	to := &stuck{release: make(chan struct{})}
	s := NewStderr(to)
	chunk := []byte(strings.Repeat("x", 1<<20) + "\n")
	for range 20 { // would block here for ever
		if n, err := s.Write(chunk); n != len(chunk) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if s.Flush(time.Millisecond) {
		t.Error("Flush says that all is written, which can't be")
	}
	close(to.release)
	if !s.Flush(time.Minute) {
		t.Fatal("Flush gave up")
	}
	s.Close()
	if got := to.Len(); got > backlog+100 {
		t.Errorf("%d bytes were kept, more than %d", got, backlog)
	}
	if !strings.Contains(to.String(), "log lines were dropped") {
		t.Error("that lines were dropped is not said")
	}
}

func TestOrderIsKeptAndRedirectSplitsIt(t *testing.T) {
	var a, b bytes.Buffer
	s := NewStderr(&a)
	write := func(text string) { _, _ = s.Write([]byte(text)) }
	write("1")
	write("2")
	undo := s.Redirect(&b)
	write("3")
	undo()
	write("4")
	s.Close()
	write("5")
	if a.String() != "124" || b.String() != "3" {
		t.Errorf("got %q and %q", a.String(), b.String())
	}
}
