package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// shape is a file to copy.
type shape struct {
	name    string
	size    int64
	reflink bool
	make    func(ctx context.Context, path string, size int64) error
}

// copyFigures copy and prove deleted files of several shapes.
func copyFigures(o options) []figure {
	proven := all(neverSlower(), atMost(peakName, 64))
	return []figure{
		copyFigure(shape{"random data", o.bytes, false, makeRandom}, proven),
		copyFigure(shape{"sparse, 5 % data", 2 * o.bytes, false, makeSparse}, proven),
		copyFigure(shape{"fragmented qcow2", o.bytes, false, makeFragmented}, proven),
		copyFigure(shape{"random data, reflink", o.bytes, true, makeRandom}, within(20*time.Millisecond)),
		copyFigure(shape{"sparse, reflink", 2 * o.bytes, true, makeSparse}, within(20*time.Millisecond)),
	}
}

// copyFigure measures copying and proving a deleted file as QEMU holds it, on a
// file system of its own.
func copyFigure(s shape, aim goal) figure {
	f := figure{
		Name: fmt.Sprintf("copy: %s, %d MiB", s.name, s.size>>20),
		Goal: aim,
		setup: func(ctx context.Context, b *bench) (func(), error) {
			unmount, err := b.mountXFS(ctx, 2*s.size+1<<30, s.reflink)
			if err != nil {
				return nil, err
			}
			if err := b.makeSource(ctx, s); err != nil {
				unmount()
				return nil, err
			}
			return func() {
				_ = b.source.Close()
				unmount()
			}, nil
		},
		before: forget,
		ours:   contender{"os-rescue", oursCopy},
		peers: []contender{
			copyPeer("cp --reflink=auto", "cp", "--reflink=auto"),
			copyPeer("cp --sparse=always", "cp", "--sparse=always"),
			copyPeer("qemu-img convert", "qemu-img", "convert", "-f", "raw", "-O", "raw", "-T", "none", "-t", "none"),
			copyPeer("rsync --sparse", "rsync", "--sparse", "--copy-links"),
		},
	}
	if s.reflink { // a clone is its own proof, theirs too
		f.peers = []contender{{"cp --reflink=always", func(ctx context.Context, b *bench) error {
			return command(ctx, "cp", "--reflink=always", b.sourcePath(), b.copyPath())
		}}}
	}
	return f
}

// copyPeer is a tool that copies the source. Its copy is then read back from the disk
// and compared, as os-rescue does.
func copyPeer(name, tool string, args ...string) contender {
	return contender{name + ", proven", func(ctx context.Context, b *bench) error {
		if err := command(ctx, tool, append(args, b.sourcePath(), b.copyPath())...); err != nil {
			return err
		}
		f, err := os.OpenFile(b.copyPath(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return err
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
		return command(ctx, "cmp", b.sourcePath(), b.copyPath())
	}}
}

const peakName = "peak MiB"

func (b *bench) copyPath() string   { return filepath.Join(b.mount, "copy") }
func (b *bench) sourcePath() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.source.Fd()) }

// oursCopy copies and proves a deleted file as QEMU holds it.
func oursCopy(ctx context.Context, b *bench) error {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins anew
		return err
	}
	src, err := copier.OpenSource(b.sourcePath(), true)
	if err != nil {
		return err
	}
	defer src.File.Close()
	dst, err := os.OpenFile(b.copyPath(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	result, err := copier.Copy(ctx, dst, src, copier.CopyOptions{Prove: true})
	if err == nil && !result.Proven {
		_, err = copier.Compare(ctx, src, dst, copier.CompareOptions{})
	}
	b.Value(peakName, peakMemory())
	return err
}

// forget removes the last copy and drops the source's pages, because QEMU with
// cache=none leaves none in the page cache.
func forget(_ context.Context, b *bench) error {
	if err := os.Remove(b.copyPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := unix.Syncfs(int(b.source.Fd())); err != nil {
		return err
	}
	return unix.Fadvise(int(b.source.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// makeSource makes the file, deletes it and keeps it open.
func (b *bench) makeSource(ctx context.Context, s shape) error {
	path := filepath.Join(b.mount, "source")
	if err := s.make(ctx, path, s.size); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	b.source = f
	return errors.Join(f.Sync(), os.Remove(path))
}

// mountXFS makes a new XFS with so much room.
func (b *bench) mountXFS(ctx context.Context, size int64, reflink bool) (unmount func(), err error) {
	image := filepath.Join(b.dir, "xfs")
	b.mount = filepath.Join(b.dir, "mnt")
	if err := os.MkdirAll(b.mount, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, size); err != nil {
		return nil, err
	}
	feature := "reflink=0"
	if reflink {
		feature = "reflink=1"
	}
	if err := command(ctx, "mkfs.xfs", "-q", "-f", "-m", feature, image); err != nil {
		return nil, err
	}
	loop, err := exec.CommandContext(ctx, "losetup", "--find", "--show", "--direct-io=on", image).Output()
	if err != nil {
		return nil, fmt.Errorf("losetup: %w", err)
	}
	device := string(bytes.TrimSpace(loop))
	// The device is freed with the last user, which is the mount from here on.
	err = command(ctx, "mount", device, b.mount)
	detach := command(context.WithoutCancel(ctx), "losetup", "--detach", device)
	if err != nil {
		return nil, err
	}
	unmount = func() {
		_ = unix.Unmount(b.mount, 0)
		_ = os.Remove(image)
	}
	if detach != nil {
		unmount()
		return nil, detach
	}
	return unmount, nil
}

// makeRandom is the worst case: no holes, no zeros.
func makeRandom(_ context.Context, path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(f, rand.Reader, size)
	return err
}

// makeSparse has a MiB of data in every twenty.
func makeSparse(_ context.Context, path string, size int64) error {
	const piece = 1 << 20
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for off := int64(0); off+piece <= size; off += 20 * piece {
		if _, err := io.CopyN(io.NewOffsetWriter(f, off), rand.Reader, piece); err != nil {
			return err
		}
	}
	return f.Truncate(size)
}

// makeFragmented makes an image whose guest has written an eighth of its clusters, at
// random places.
func makeFragmented(ctx context.Context, path string, size int64) error {
	const cluster = 64 << 10
	create := []string{"create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, strconv.FormatInt(size, 10)}
	if err := command(ctx, "qemu-img", create...); err != nil {
		return err
	}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	var script strings.Builder
	for range size / cluster / 8 {
		fmt.Fprintf(&script, "write -q -P %d %d %d\n", 1+random.IntN(255), random.Int64N(size/cluster)*cluster, cluster)
	}
	cmd := exec.CommandContext(ctx, "qemu-io", "-n", "-f", "qcow2", path)
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-io: %w: %.200s", err, out)
	}
	return nil
}

// peakMemory is this process's peak of memory in MiB since its last reset.
func peakMemory() float64 {
	data, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	var kib float64
	_, _ = fmt.Sscanf(rest, "%g", &kib)
	return kib / 1024
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}
