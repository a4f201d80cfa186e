package copier_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

const mib = 1 << 20

// deleted creates a file with that content, deletes it, and returns a source for
// it the way a rescue gets one: through the descriptor of a process that holds it.
func deleted(t testing.TB, dir string, direct bool, fill func(*os.File)) copier.Source {
	t.Helper()
	holder, err := os.Create(filepath.Join(dir, "source"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Close() })
	fill(holder)
	if err := os.Remove(holder.Name()); err != nil {
		t.Fatal(err)
	}
	src, err := copier.OpenSource(fmt.Sprintf("/proc/self/fd/%d", holder.Fd()), direct)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.File.Close() })
	return src
}

func target(t testing.TB, dir string) *os.File {
	t.Helper()
	dst, err := os.OpenFile(filepath.Join(dir, "copy"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = dst.Close()
		_ = os.Remove(dst.Name())
	})
	return dst
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, f *os.File, off int64, data []byte) {
	t.Helper()
	_, err := f.WriteAt(data, off)
	must(t, err)
}

func random(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	return data
}

func allocated(t testing.TB, f *os.File) int64 {
	t.Helper()
	n, err := copier.Source{File: f}.Allocated()
	must(t, err)
	return n
}

// sparse writes a file of random stretches of data, written zeros and holes, and
// returns its content.
func sparse(t testing.TB, f *os.File, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	noise := random(3 * mib)
	size := r.IntN(9*mib) + 1
	content := make([]byte, size)
	for off := 0; off < size; {
		n := min(1+r.IntN(1<<(4+r.IntN(18))), size-off)
		part := content[off : off+n]
		switch r.IntN(3) {
		case 0: // a hole
		case 1:
			write(t, f, int64(off), part) // zeros that are written
		case 2:
			copy(part, noise[r.IntN(mib):])
			write(t, f, int64(off), part)
		}
		off += n
	}
	must(t, f.Truncate(int64(size)))
	return content
}

func TestCopyOfADeletedFileHasItsEveryByte(t *testing.T) {
	for _, kind := range everyKind {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, 400)
			for seed := range uint64(6) {
				prove := seed%2 == 0
				for _, direct := range []bool{false, true} {
					if direct && kind == lying {
						continue // what is written buffered is read buffered here
					}
					t.Run(fmt.Sprintf("%d direct=%t", seed, direct), func(t *testing.T) {
						var content []byte
						src := deleted(t, dir, direct, func(f *os.File) { content = sparse(t, f, seed) })
						dst := target(t, dir)
						progress := int64(0)
						result, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{Prove: prove, Progress: func(n int64) { progress += n }})
						must(t, err)
						got, err := os.ReadFile(dst.Name())
						must(t, err)
						if !bytes.Equal(got, content) {
							t.Fatal("the copy is not what was written")
						}
						if result.Size != int64(len(content)) || progress != result.Size {
							t.Errorf("result %+v, progress %d, for %d bytes", result, progress, len(content))
						}
						wantMethod := copier.MethodExtents
						if kind == xfsReflink || kind == btrfs {
							wantMethod = copier.MethodClone
						}
						readsBack := kind == xfsNoReflink || kind == ext4 || kind == ext4Small
						if result.Method != wantMethod || result.Proven != (wantMethod == copier.MethodClone || prove && readsBack) {
							t.Errorf("result %+v", result)
						}
						progress = 0
						digest, err := copier.Compare(t.Context(), src, dst, copier.CompareOptions{Digest: true, Progress: func(n int64) { progress += n }})
						must(t, err)
						sum := sha256.Sum256(content)
						if digest != hex.EncodeToString(sum[:]) {
							t.Error("the digest is not that of the content")
						}
						if progress != result.Size {
							t.Errorf("progress of the comparison is %d", progress)
						}
					})
				}
			}
		})
	}
}

func TestHolesStayHolesAndWrittenZerosBecomeHoles(t *testing.T) {
	dir := mount(t, xfsNoReflink, 400)
	tests := map[string]struct {
		fill     func(t *testing.T, f *os.File)
		wantData int64
	}{
		"empty":     {func(*testing.T, *os.File) {}, 0},
		"one byte":  {func(t *testing.T, f *os.File) { write(t, f, 0, []byte{1}) }, 1},
		"all hole":  {func(t *testing.T, f *os.File) { must(t, f.Truncate(64*mib+3)) }, 0},
		"all zeros": {func(t *testing.T, f *os.File) { write(t, f, 0, make([]byte, 8*mib+3)) }, 0},
		"a byte at the end of zeros": {func(t *testing.T, f *os.File) {
			write(t, f, 0, make([]byte, 3*mib))
			write(t, f, 3*mib-1, []byte{1})
		}, 4096},
		"a byte after a hole": {func(t *testing.T, f *os.File) { write(t, f, 7*mib+4095, []byte{1, 1}) }, 4097},
	}
	for name, test := range tests {
		for n := range 4 {
			direct, prove := n&1 > 0, n&2 > 0
			t.Run(fmt.Sprintf("%s direct=%t prove=%t", name, direct, prove), func(t *testing.T) {
				src := deleted(t, dir, direct, func(f *os.File) { test.fill(t, f) })
				dst := target(t, dir)
				result, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{Prove: prove})
				must(t, err)
				if result.DataBytes != test.wantData {
					t.Errorf("%d bytes were written, want %d", result.DataBytes, test.wantData)
				}
				if n := allocated(t, dst); n > (test.wantData+4095)/4096*4096 {
					t.Errorf("the copy takes %d bytes", n)
				}
				_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
				must(t, err)
			})
		}
	}
}

func TestASparseDiskIsCopiedInSpaceAndReadsProportionalToItsData(t *testing.T) {
	dir := mount(t, xfsNoReflink, 400)
	data := random(mib)
	src := deleted(t, dir, true, func(f *os.File) {
		for i := range int64(64) {
			write(t, f, i*64*mib, data)
		}
		must(t, f.Truncate(4096*mib))
	})
	dst := target(t, dir)
	before := readBytes(t)
	result, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
	must(t, err)
	if n := readBytes(t) - before; n > 80*mib {
		t.Errorf("%d MiB were read for 64 MiB of data", n/mib)
	}
	if n := allocated(t, dst); n > 66*mib || result.DataBytes != 64*mib || result.Size != 4096*mib {
		t.Errorf("the copy takes %d MiB, %+v", n/mib, result)
	}
}

// readBytes is the number of bytes that this process has asked the kernel to read.
func readBytes(t *testing.T) int64 {
	t.Helper()
	var n int64
	data, err := os.ReadFile("/proc/self/io")
	must(t, err)
	_, err = fmt.Sscanf(string(data), "rchar: %d", &n)
	must(t, err)
	return n
}

func TestACloneSharesTheDataOfItsSource(t *testing.T) {
	dir := mount(t, xfsReflink, 400)
	content := random(24*mib + 5)
	src := deleted(t, dir, true, func(f *os.File) { write(t, f, 0, content) })
	must(t, unix.Syncfs(int(src.File.Fd())))
	free := available(t, dir)
	dst := target(t, dir)
	result, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
	must(t, err)
	if result != (copier.Result{Method: copier.MethodClone, Size: int64(len(content)), Proven: true}) {
		t.Errorf("%+v", result)
	}
	if taken := free - available(t, dir); taken > mib {
		t.Errorf("the clone takes %d bytes", taken)
	}
	got, err := os.ReadFile(dst.Name())
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Error("the clone is not what was written")
	}
}

func available(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	return int64(st.Bavail) * st.Bsize
}

func TestAFullTargetIsAnErrorThatSaysSo(t *testing.T) {
	src := deleted(t, t.TempDir(), false, func(f *os.File) { write(t, f, 0, random(64*mib)) })
	for _, kind := range []string{xfsNoReflink, ext4} {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, 310)
			filler, err := os.Create(filepath.Join(dir, "filler"))
			must(t, err)
			var st unix.Statfs_t
			must(t, unix.Fstatfs(int(filler.Fd()), &st))
			must(t, unix.Fallocate(int(filler.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-32*mib))
			must(t, filler.Close())
			_, err = copier.Copy(t.Context(), target(t, dir), src, copier.CopyOptions{})
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestSpaceThatWasFreedJustNowIsUsed(t *testing.T) {
	dir := mount(t, xfsNoReflink, 400)
	src := deleted(t, dir, true, func(f *os.File) { write(t, f, 0, random(130*mib)) })
	for range 5 { // each copy needs the space of the one before
		dst := target(t, dir)
		_, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
		must(t, err)
		must(t, dst.Close())
		must(t, os.Remove(dst.Name()))
	}
}

func TestCopyRefusesADestinationWithContent(t *testing.T) {
	dir := t.TempDir()
	src := deleted(t, dir, false, func(f *os.File) { write(t, f, 0, []byte("new")) })
	dst := target(t, dir)
	write(t, dst, 0, []byte("old"))
	if _, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{}); !errors.Is(err, copier.ErrNotEmpty) {
		t.Errorf("error %v", err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || string(got) != "old" {
		t.Errorf("it now has %q, %v", got, err)
	}
}

func TestACancelledContextStopsCopyAndCompareWithinAChunk(t *testing.T) {
	dir := t.TempDir()
	src := deleted(t, dir, false, func(f *os.File) { write(t, f, 0, random(16*mib)) })
	dst := target(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	progress := int64(0)
	_, err := copier.Copy(ctx, dst, src, copier.CopyOptions{Progress: func(n int64) { progress += n; cancel() }})
	if !errors.Is(err, context.Canceled) || progress > mib {
		t.Errorf("error %v after %d bytes", err, progress)
	}
	must(t, dst.Truncate(0))
	_, err = copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
	must(t, err)
	ctx, cancel = context.WithCancel(t.Context())
	progress = 0
	_, err = copier.Compare(ctx, src, dst, copier.CompareOptions{Progress: func(n int64) { progress += n; cancel() }})
	if !errors.Is(err, context.Canceled) || progress > mib {
		t.Errorf("error %v after %d bytes", err, progress)
	}
}

func TestASourceThatGrowsOrShrinksMeanwhileIsAnError(t *testing.T) {
	dir := mount(t, ext4, 400)
	for name, size := range map[string]int64{"grows": 9 * mib, "grows by a byte": 8*mib + 1, "shrinks": 7*mib + 1, "shrinks to nothing": 0} {
		for n := range 4 {
			direct, prove := n&1 > 0, n&2 > 0
			t.Run(fmt.Sprintf("%s direct=%t prove=%t", name, direct, prove), func(t *testing.T) {
				var path string
				src := deleted(t, dir, direct, func(f *os.File) {
					write(t, f, 0, random(8*mib))
					path = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
				})
				change := func(int64) { must(t, os.Truncate(path, size)) }
				_, err := copier.Copy(t.Context(), target(t, dir), src, copier.CopyOptions{Prove: prove, Progress: change})
				if !errors.Is(err, copier.ErrSourceChanged) {
					t.Errorf("copy: error %v", err)
				}
				must(t, os.Truncate(path, 8*mib))
				dst := target(t, t.TempDir())
				_, err = copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
				must(t, err)
				if _, err := copier.Compare(t.Context(), src, dst, copier.CompareOptions{Progress: change}); !errors.Is(err, copier.ErrSourceChanged) {
					t.Errorf("compare: error %v", err)
				}
			})
		}
	}
}

func TestCompareFindsASingleFlippedByteAnywhere(t *testing.T) {
	const size = 5*mib + 4097
	dir := mount(t, xfsNoReflink, 400)
	src := deleted(t, dir, true, func(f *os.File) {
		write(t, f, 0, random(2*mib))
		must(t, f.Truncate(size)) // a hole of 3 MiB
	})
	dst := target(t, dir)
	_, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
	must(t, err)
	for _, off := range []int64{0, 1, 4095, 4096, mib - 1, mib, 2*mib + 7, 4 * mib, size - 4097, size - 2, size - 1} {
		var b [1]byte
		_, err := dst.ReadAt(b[:], off)
		must(t, err)
		write(t, dst, off, []byte{b[0] ^ 0x10})
		_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
		var differs *copier.DiffersError
		if !errors.Is(err, copier.ErrDiffers) || !errors.As(err, &differs) || differs.Offset != off {
			t.Errorf("byte %d: error %v", off, err)
		}
		write(t, dst, off, b[:])
	}
	_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
	must(t, err)

	for _, wrong := range []int64{0, size - 1, size + 1} {
		must(t, dst.Truncate(wrong))
		_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
		var differs *copier.DiffersError
		if !errors.As(err, &differs) || differs.CopySize != wrong || differs.SourceSize != size || differs.Offset != min(wrong, size) {
			t.Errorf("size %d: error %v", wrong, err)
		}
	}
}

func TestCompareSeesWhatTheDiskHasAndNotThePageCache(t *testing.T) {
	for _, kind := range []string{xfsNoReflink, ext4} {
		t.Run(kind, func(t *testing.T) {
			dir, image := mountImage(t, kind, 400)
			src := deleted(t, t.TempDir(), false, func(f *os.File) { write(t, f, 0, random(2*mib)) })
			dst := target(t, dir)
			_, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
			must(t, err)
			_, err = os.ReadFile(dst.Name()) // now the page cache has it
			must(t, err)

			const off = mib + 17
			block := int32(off / 4096)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dst.Fd(), fibmap, uintptr(unsafe.Pointer(&block))); errno != 0 || block == 0 {
				t.Fatalf("FIBMAP: block %d, %v", block, errno)
			}
			disk, err := os.OpenFile(image, os.O_RDWR, 0)
			must(t, err)
			defer func() { _ = disk.Close() }()
			var before, cached [1]byte
			at := int64(block)*4096 + off%4096
			_, err = disk.ReadAt(before[:], at)
			must(t, err)
			write(t, disk, at, []byte{before[0] ^ 1})
			_, err = dst.ReadAt(cached[:], off)
			must(t, err)
			if cached != before {
				t.Fatal("the page cache is expected to hold the old byte")
			}
			_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
			var differs *copier.DiffersError
			if !errors.As(err, &differs) || differs.Offset != off {
				t.Errorf("error %v", err)
			}
		})
	}
}

const fibmap = 1 // the ioctl FIBMAP of linux/fs.h

func TestACopyIsTrueWhereBufferedReadsLie(t *testing.T) {
	dir, backing := t.TempDir(), t.TempDir()
	server, err := lyingfs.Mount(dir, backing, lyingfs.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })

	created, written := random(2*mib), bytes.Repeat([]byte("the guest's"), mib)[:3*mib]
	src := deleted(t, dir, true, func(f *os.File) {
		write(t, f, 0, created)
		guest, err := os.OpenFile(f.Name(), os.O_RDWR|unix.O_DIRECT, 0)
		must(t, err)
		defer func() { _ = guest.Close() }()
		write(t, guest, 0, written)
	})
	dst := target(t, dir)
	result, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
	must(t, err)
	if result.Proven {
		t.Error("a copy on a file system that may lie is no proof")
	}
	_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
	must(t, err)
	got, err := os.ReadFile(filepath.Join(backing, "copy"))
	must(t, err)
	if !bytes.Equal(got, written) {
		t.Error("the copy is not what the guest wrote")
	}

	// A buffered source gives a stale copy, and the comparison finds that.
	buffered, err := copier.OpenSource(fmt.Sprintf("/proc/self/fd/%d", src.File.Fd()), false)
	must(t, err)
	defer func() { _ = buffered.File.Close() }()
	stale := target(t, t.TempDir())
	_, err = copier.Copy(t.Context(), stale, buffered, copier.CopyOptions{})
	must(t, err)
	got, err = os.ReadFile(stale.Name())
	must(t, err)
	if !bytes.Equal(got, append(created, make([]byte, mib)...)) {
		t.Error("the buffered copy is expected to be the file as created")
	}
	if _, err := copier.Compare(t.Context(), src, stale, copier.CompareOptions{}); !errors.Is(err, copier.ErrDiffers) {
		t.Errorf("the stale copy was not found out: %v", err)
	}

	server.RefuseDirect(true)
	if _, err := copier.OpenSource(fmt.Sprintf("/proc/self/fd/%d", src.File.Fd()), true); !errors.Is(err, copier.ErrDirectRefused) {
		t.Errorf("error %v", err)
	}
}
