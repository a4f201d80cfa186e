package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/os-rescue/os-rescue/test/lab"
)

// The processes beside the guest's QEMU, and how many files each has open.
const (
	otherProcesses   = 400
	otherDescriptors = 10
)

// scanFigure measures a whole `os-rescue scan`, its start and libvirt's answers
// included, beside `lsof +L1`, which finds deleted files and no more.
func scanFigure() figure {
	var scene *scene
	return figure{
		Name: fmt.Sprintf("scan, one guest among %d processes", otherProcesses),
		Peer: "lsof +L1",
		setup: func(ctx context.Context, b *bench) (func(), error) {
			var err error
			scene, err = newScene(ctx, b.dir)
			return func() { scene.Close() }, err
		},
		before: func(context.Context, *bench) error { return nil },
		ours: func(ctx context.Context, _ *bench) error {
			return quiet(ctx, scene.binary, "scan", "--output", "json")
		},
		peer: func(ctx context.Context, _ *bench) error { return quiet(ctx, "lsof", "+L1", "-n", "-P") },
	}
}

func quiet(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// scene is a lab with a guest whose files were deleted, and a crowd of other
// processes with open files.
type scene struct {
	binary string
	crowd  []*exec.Cmd
	inputs []io.Closer
	ends   []func()
	ctx    context.Context
	failed bool
}

// errScene is what ends the making of a scene when the lab gives up.
var errScene = errors.New("the lab failed")

func newScene(ctx context.Context, dir string) (s *scene, err error) {
	s = &scene{ctx: ctx}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err = s.try(func() {
		l := lab.New(s, lab.Options{})
		s.binary = l.Binary(s)
		l.Boot(s, lab.Spec{})
		l.DeleteTree(s)
	}); err != nil {
		return s, err
	}
	file := filepath.Join(dir, "open")
	if err = os.WriteFile(file, nil, 0o600); err != nil {
		return s, err
	}
	for range otherProcesses {
		cmd := exec.CommandContext(ctx, "perl", "-e", `open($f[$_], "<", $ARGV[0]) for 1..$ARGV[1]; <STDIN>`, file, fmt.Sprint(otherDescriptors))
		in, perr := cmd.StdinPipe()
		if perr == nil {
			perr = cmd.Start()
		}
		if perr != nil {
			return s, perr
		}
		s.crowd, s.inputs = append(s.crowd, cmd), append(s.inputs, in)
	}
	return s, nil
}

// try runs what may end in Fatalf.
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

// Close ends the crowd and the lab.
func (s *scene) Close() {
	for n, cmd := range s.crowd {
		_ = s.inputs[n].Close()
		_ = cmd.Wait()
	}
	for n := len(s.ends) - 1; n >= 0; n-- {
		s.ends[n]()
	}
	s.crowd, s.inputs, s.ends = nil, nil, nil
}

// Helper, Logf, Fatalf, Cleanup, Failed and Context make the scene what a lab
// takes for a test.

// Helper does nothing.
func (s *scene) Helper() {}

// Logf writes to standard error.
func (s *scene) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Fatalf ends the making of the scene.
func (s *scene) Fatalf(format string, args ...any) {
	s.failed = true
	panic(fmt.Errorf("%w: "+format, append([]any{errScene}, args...)...))
}

// Cleanup notes what Close does.
func (s *scene) Cleanup(f func()) { s.ends = append(s.ends, f) }

// Failed is true after Fatalf.
func (s *scene) Failed() bool { return s.failed }

// Context is the benchmark's.
func (s *scene) Context() context.Context { return s.ctx }
