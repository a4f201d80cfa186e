package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/os-rescue/os-rescue/test/lab"
)

// session is the lab.T of a program that is no test, with its lab.
type session struct {
	ctx      context.Context
	mu       sync.Mutex
	cleanups []func()
	lab      *lab.Lab
	guests   map[string]*lab.Instance
}

// failure is what Fatalf panics with.
type failure struct{ err error }

// try returns what f, or what it called, gave to Fatalf.
func (s *session) try(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.err
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// end runs the cleanups, the last one first.
func (s *session) end() {
	for n := len(s.cleanups) - 1; n >= 0; n-- {
		s.cleanups[n]()
	}
}

// define makes a guest; one at a time.
func (s *session) define(spec lab.Spec) *lab.Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	guest := s.lab.Define(s, spec)
	s.guests[guest.Name], s.guests[guest.UUID] = guest, guest
	return guest
}

// guest returns the one that a request names, by domain or UUID.
func (s *session) guest(r *http.Request) *lab.Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	guest := s.guests[r.FormValue("domain")]
	if guest == nil {
		s.Fatalf("labctl: no guest %q", r.FormValue("domain"))
	}
	return guest
}

func (s *session) Helper()                           {}
func (s *session) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (s *session) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }
func (s *session) Cleanup(f func())                  { s.cleanups = append(s.cleanups, f) }
func (s *session) Failed() bool                      { return false }
func (s *session) Context() context.Context          { return s.ctx }

var _ lab.T = (*session)(nil)
