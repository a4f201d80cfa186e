package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// scene is the lab of a figure. To the lab it is a test.
type scene struct {
	binary string // os-rescue
	ends   []func()
	ctx    context.Context
	failed bool
}

// errScene ends the setup of a scene when the lab fails.
var errScene = errors.New("the lab failed")

// try runs a function that may end in Fatalf.
func (s *scene) try(do func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			failure, ok := r.(error)
			if !ok || !errors.Is(failure, errScene) {
				panic(r)
			}
			err = failure
		}
	}()
	do()
	return nil
}

// Close calls the functions noted by Cleanup, the last first.
func (s *scene) Close() {
	for n := len(s.ends) - 1; n >= 0; n-- {
		s.ends[n]()
	}
	s.ends = nil
}

// Helper does nothing.
func (s *scene) Helper() {}

// Logf writes to standard error.
func (s *scene) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Fatalf ends the setup of the scene.
func (s *scene) Fatalf(format string, args ...any) {
	s.failed = true
	panic(fmt.Errorf("%w: "+format, append([]any{errScene}, args...)...))
}

// Cleanup notes a function for Close.
func (s *scene) Cleanup(f func()) { s.ends = append(s.ends, f) }

// Failed is true after Fatalf.
func (s *scene) Failed() bool { return s.failed }

// Context is the benchmark's.
func (s *scene) Context() context.Context { return s.ctx }
