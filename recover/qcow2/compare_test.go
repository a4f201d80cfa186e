package qcow2_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// nobody is an unprivileged account.
const nobody = 65534

func member(t *testing.T, path, format string) qcow2.Member {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return qcow2.Member{File: f, Format: format}
}

// written is a new image with what qemu-io's commands write into it.
func written(t *testing.T, args []string, commands ...string) string {
	t.Helper()
	f := image(t, args...)
	io := []string{"-f", "qcow2"}
	for _, c := range commands {
		io = append(io, "-c", c)
	}
	run(t, "qemu-io", append(io, f.Name())...)
	return f.Name()
}

func TestCompareTellsWhetherAGuestWouldSeeADifference(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, []byte(strings.Repeat("a backing file. ", 1<<18)), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay := func(commands ...string) qcow2.Side {
		path := written(t, []string{"-b", base, "-F", "raw"}, commands...)
		return qcow2.Side{Chain: []qcow2.Member{member(t, path, "qcow2"), member(t, base, "raw")}}
	}
	alone := func(args []string, commands ...string) qcow2.Side {
		return qcow2.Side{Chain: []qcow2.Member{member(t, written(t, args, commands...), "qcow2")}}
	}
	flat := filepath.Join(t.TempDir(), "flat")
	one := overlay("write -P 7 1M 128k")
	run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", one.Chain[0].File.Name(), flat)

	for name, tt := range map[string]struct {
		a, b qcow2.Side
		same bool
	}{
		"another order and size of clusters": {alone(nil, "write -P 7 0 1M", "write -P 9 32M 1M"), alone([]string{"-o", "cluster_size=4k"}, "write -P 9 32M 1M", "write -P 7 0 1M"), true},
		"one byte in a cluster":              {alone(nil, "write -P 7 0 1M"), alone(nil, "write -P 7 0 1M", "write -P 8 65536 512"), false},
		"zeroes and nothing":                 {alone(nil, "write -P 0 0 1M"), alone(nil), true},
		"an overlay and its flat copy":       {one, qcow2.Side{Chain: []qcow2.Member{member(t, flat, "raw")}}, true},
		"an overlay that lacks a write":      {one, overlay(), false},
		"a further cluster at the end":       {alone(nil), alone(nil, "write -P 1 67043328 64k"), false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, direct := range []bool{false, true} {
				err := qcow2.Compare(t.Context(), tt.a, tt.b, qcow2.CompareOptions{UID: nobody, GID: nobody, Direct: direct})
				if tt.same && err != nil || !tt.same && !errors.Is(err, qcow2.ErrDiffers) {
					t.Errorf("direct %v: %v", direct, err)
				}
			}
		})
	}
	t.Run("sizes", func(t *testing.T) {
		larger := filepath.Join(t.TempDir(), "larger")
		run(t, "qemu-img", "create", "-q", "-f", "qcow2", larger, "65M")
		err := qcow2.Compare(t.Context(), alone(nil), qcow2.Side{Chain: []qcow2.Member{member(t, larger, "qcow2")}}, qcow2.CompareOptions{UID: nobody, GID: nobody})
		if !errors.Is(err, qcow2.ErrDiffers) {
			t.Errorf("a larger disk of zeroes: %v", err)
		}
	})
}

// A suspended QEMU has the images open and locked, and serves one over NBD.
func TestCompareAndCheckReadWhatAQEMUHasOpen(t *testing.T) {
	path := written(t, nil, "write -P 7 0 8M")
	copied := written(t, nil, "write -P 7 0 8M")
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s")
	server := exec.CommandContext(t.Context(), "qemu-nbd", "-f", "qcow2", "-k", socket, "-x", "vda", "-t", path)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	opt := qcow2.CompareOptions{UID: nobody, GID: nobody}
	var told []float64
	opt.Progress = func(share float64) { told = append(told, share) }
	locked, other := member(t, path, "qcow2"), member(t, copied, "qcow2")
	if err := qcow2.Compare(t.Context(), qcow2.Side{Chain: []qcow2.Member{locked}}, qcow2.Side{Chain: []qcow2.Member{other}}, opt); err != nil {
		t.Errorf("a locked image: %v", err)
	}
	if len(told) == 0 || told[len(told)-1] != 1 {
		t.Errorf("the progress was %v", told)
	}
	export := qcow2.Side{Socket: socket, Export: "vda"}
	if err := qcow2.Compare(t.Context(), qcow2.Side{Chain: []qcow2.Member{other}}, export, opt); err != nil {
		t.Errorf("an export: %v", err)
	}
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 8 4M 512", copied)
	if err := qcow2.Compare(t.Context(), qcow2.Side{Chain: []qcow2.Member{other}}, export, opt); !errors.Is(err, qcow2.ErrDiffers) {
		t.Errorf("an export that differs: %v", err)
	}
	if err := qcow2.Compare(t.Context(), qcow2.Side{Chain: []qcow2.Member{other}}, qcow2.Side{Socket: socket, Export: "vdz"}, opt); !errors.Is(err, qcow2.ErrCompareFailed) {
		t.Errorf("no such export: %v", err)
	}
	if r, err := qcow2.Check(t.Context(), locked.File, qcow2.CheckOptions{UID: nobody, GID: nobody, InService: true}); err != nil || r.Corrupt() || r.ImageEnd == 0 {
		t.Errorf("check of a locked image: %+v, %v", r, err)
	}
}

func TestAComparisonThatCantBeMadeIsAnErrorAndNoVerdict(t *testing.T) {
	a := written(t, nil, "write -P 7 0 1M")
	side := qcow2.Side{Chain: []qcow2.Member{member(t, a, "qcow2")}}
	opt := qcow2.CompareOptions{UID: nobody, GID: nobody}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := qcow2.Compare(ctx, side, side, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	data := filepath.Join(t.TempDir(), "data")
	if err := qcow2.Compare(t.Context(), side, qcow2.Side{Chain: []qcow2.Member{{File: image(t, "-o", "data_file="+data), Format: "qcow2"}}}, opt); !errors.Is(err, qcow2.ErrExternalData) {
		t.Errorf("an external data file: %v", err)
	}
	if err := os.Chmod(a, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := qcow2.Compare(t.Context(), side, side, opt); !errors.Is(err, qcow2.ErrCompareFailed) {
		t.Errorf("a file that qemu-img may not read: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := qcow2.Compare(t.Context(), side, side, opt); !errors.Is(err, qcow2.ErrNoQemuImg) {
		t.Errorf("nothing installed: %v", err)
	}
}

func TestTheHeaderTellsWhatAMirrorWouldLose(t *testing.T) {
	f := image(t)
	parse := func() qcow2.Header {
		t.Helper()
		h, err := qcow2.ParseHeader(f, size(t, f))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if h := parse(); h.Snapshots != 0 || h.Bitmaps {
		t.Errorf("a new image: %+v", h)
	}
	run(t, "qemu-img", "snapshot", "-c", "one", f.Name())
	run(t, "qemu-img", "snapshot", "-c", "two", f.Name())
	run(t, "qemu-img", "bitmap", "--add", "-f", "qcow2", f.Name(), "b")
	if h := parse(); h.Snapshots != 2 || !h.Bitmaps {
		t.Errorf("with two snapshots and a bitmap: %+v", h)
	}
}
