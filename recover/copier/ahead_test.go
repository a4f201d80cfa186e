package copier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// held opens a source's file for writing, as its guest does.
func held(t *testing.T, src copier.Source) *os.File {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", src.File.Fd()), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// equals checks a copy byte for byte, through the page cache and from the disk.
func equals(t *testing.T, src copier.Source, dst *os.File, content []byte) {
	t.Helper()
	got, err := os.ReadFile(dst.Name())
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Errorf("the copy is not what was written")
	}
	_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
	must(t, err)
}

func TestWhatIsWrittenWhileAFileIsCopiedAheadIsInTheFinishedCopy(t *testing.T) {
	for _, kind := range everyKind {
		if kind == lying {
			continue // see the test of its own
		}
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, 400)
			for seed := range uint64(8) {
				direct := seed%2 == 0
				t.Run(fmt.Sprintf("%d direct=%t", seed, direct), func(t *testing.T) {
					var content []byte
					src := deleted(t, dir, direct, func(f *os.File) { content = sparse(t, f, seed) })
					guest, r := held(t, src), rand.New(rand.NewPCG(seed, 9))
					scribble := func() {
						for range 1 + r.IntN(3) {
							off, n := r.IntN(len(content)+mib), 1+r.IntN(1<<r.IntN(17))
							data := make([]byte, n)
							if r.IntN(3) > 0 {
								copy(data, random(n))
							}
							content = append(content, make([]byte, max(0, off+n-len(content)))...)
							copy(content[off:], data)
							write(t, guest, int64(off), data)
						}
						if r.IntN(6) == 0 {
							content = content[:len(content)-r.IntN(len(content))]
							must(t, guest.Truncate(int64(len(content))))
						}
					}
					dst := target(t, dir)
					progress := int64(0)
					size, err := src.Size()
					must(t, err)
					draft, _, err := copier.Ahead(t.Context(), dst, src, func(n int64) { progress += n; scribble() })
					must(t, err)
					if progress != size {
						t.Errorf("progress %d for %d bytes", progress, size)
					}
					scribble()
					if seed%3 == 0 {
						draft = nil // as after a crash
					}
					progress = 0
					result, err := copier.Finish(t.Context(), dst, src, draft, func(n int64) { progress += n })
					must(t, err)
					want := copier.Result{
						Method:    copier.MethodAhead,
						Size:      int64(len(content)),
						DataBytes: result.DataBytes,
						Proven:    true,
					}
					if result != want || progress != want.Size {
						t.Errorf("%+v, progress %d, for %d bytes", result, progress, len(content))
					}
					equals(t, src, dst, content)
				})
			}
		})
	}
}

// The copy was read back once and need not be read again: Finish reads only the
// source, in full.
func TestFinishReadsTheSourceInFullAndWritesOnlyTheBlocksThatDiffer(t *testing.T) {
	const size = 24*mib + 4097
	for _, kind := range []string{xfsNoReflink, ext4} {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, 400)
			content := append(random(20*mib), make([]byte, size-20*mib)...)
			src := deleted(t, dir, true, func(f *os.File) {
				write(t, f, 0, content[:20*mib])
				must(t, f.Truncate(size))
			})
			dst := target(t, dir)
			draft, written, err := copier.Ahead(t.Context(), dst, src, nil)
			must(t, err)
			if written != 20*mib {
				t.Errorf("%d bytes were copied ahead", written)
			}
			guest := held(t, src)
			for _, off := range []int64{0, 4095, mib - 1, 5*mib + 7, 22 * mib, size - 4098, size - 1} {
				content[off] ^= 1
				write(t, guest, off, content[off:off+1])
				before := readBytes(t)
				result, err := copier.Finish(t.Context(), dst, src, draft, nil)
				must(t, err)
				// One chunk of the copy to find the difference, then that chunk of both again.
				if read := readBytes(t) - before; read < size || read > size+4*mib {
					t.Errorf("byte %d: %d bytes were read", off, read)
				}
				if want := min(4096, size-off/4096*4096); result.DataBytes != want {
					t.Errorf("byte %d: %d bytes were written, want %d", off, result.DataBytes, want)
				}
				equals(t, src, dst, content)
				content[off] ^= 1
				write(t, guest, off, content[off:off+1])
				_, err = copier.Finish(t.Context(), dst, src, draft, nil)
				must(t, err)
				// XFS reserves space of its own accord for a file that grows.
				if n := allocated(t, dst); n > 21*mib && n > allocated(t, src.File) {
					t.Errorf("the copy takes %d bytes", n)
				}
			}
		})
	}
}

func TestFinishMakesACopyOfWhateverThereIs(t *testing.T) {
	dir := mount(t, xfsNoReflink, 400)
	content := append(random(3*mib), make([]byte, 2*mib+5)...)
	for name, old := range map[string][]byte{
		"nothing":    nil,
		"half of it": content[:mib+17],
		"rubbish":    random(7 * mib),
		"more":       append(bytes.Clone(content), 1),
	} {
		t.Run(name, func(t *testing.T) {
			src := deleted(t, dir, true, func(f *os.File) { write(t, f, 0, content) })
			dst := target(t, dir)
			write(t, dst, 0, old)
			result, err := copier.Finish(t.Context(), dst, src, nil, nil)
			must(t, err)
			if !result.Proven {
				t.Errorf("%+v", result)
			}
			equals(t, src, dst, content)
		})
	}
}

func TestACopyAheadIsFinishedWhereBufferedReadsLie(t *testing.T) {
	dir, backing := t.TempDir(), t.TempDir()
	server, err := lyingfs.Mount(dir, backing, lyingfs.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })
	var guest *os.File
	src := deleted(t, dir, true, func(f *os.File) {
		write(t, f, 0, random(2*mib))
		guest, err = os.OpenFile(f.Name(), os.O_RDWR|unix.O_DIRECT, 0)
		must(t, err)
	})
	defer func() { _ = guest.Close() }()
	written := bytes.Repeat([]byte("the guest's"), mib)[:3*mib]
	write(t, guest, 0, written)
	dst := target(t, dir)
	draft, _, err := copier.Ahead(t.Context(), dst, src, nil)
	must(t, err)
	copy(written[mib:], random(mib/2))
	write(t, guest, 0, written)
	_, err = copier.Finish(t.Context(), dst, src, draft, nil)
	must(t, err)
	got, err := os.ReadFile(backing + "/copy")
	must(t, err)
	if !bytes.Equal(got, written) {
		t.Error("the copy is not what the guest wrote")
	}
}

func TestErrorsOfCopiesThatAreMadeAhead(t *testing.T) {
	dir := mount(t, ext4, 310)
	src := deleted(t, t.TempDir(), false, func(f *os.File) { write(t, f, 0, random(64*mib)) })
	t.Run("a destination with content", func(t *testing.T) {
		dst := target(t, dir)
		write(t, dst, 0, []byte("old"))
		if _, _, err := copier.Ahead(t.Context(), dst, src, nil); !errors.Is(err, copier.ErrNotEmpty) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		dst, progress := target(t, dir), int64(0)
		_, _, err := copier.Ahead(ctx, dst, src, func(n int64) { progress += n; cancel() })
		if !errors.Is(err, context.Canceled) || progress > 8*mib {
			t.Errorf("error %v after %d bytes", err, progress)
		}
		if _, err := copier.Finish(ctx, dst, src, nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no room", func(t *testing.T) {
		filler, err := os.Create(dir + "/filler")
		must(t, err)
		var st unix.Statfs_t
		must(t, unix.Fstatfs(int(filler.Fd()), &st))
		must(t, unix.Fallocate(int(filler.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-32*mib))
		must(t, filler.Close())
		dst := target(t, dir)
		if _, _, err := copier.Ahead(t.Context(), dst, src, nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v", err)
		}
		if _, err := copier.Finish(t.Context(), dst, src, nil, nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v", err)
		}
	})
}
