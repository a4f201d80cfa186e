package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
)

func copyFigures(options) []figure {
	return []figure{
		copyFigure("copy and compare, no reflink", "cp --sparse=always; cmp", false, peerCopyCompare),
		copyFigure("the same, on disk when done", "cp --sparse=always; sync FILE; cmp", false, peerCopySyncCompare),
		copyFigure("copy, reflink (its own proof)", "cp --reflink=always", true, peerReflink),
	}
}

// copyFigure measures copying and proving a deleted file as QEMU holds it.
func copyFigure(name, peerName string, reflink bool, peer func(context.Context, *bench) error) figure {
	return figure{
		Name: name,
		setup: func(ctx context.Context, b *bench) (func(), error) {
			unmount, err := b.mountXFS(ctx, reflink)
			if err != nil {
				return nil, err
			}
			if err := b.makeSource(); err != nil {
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
		peers:  []contender{{peerName, peer}},
	}
}

func (b *bench) copyPath() string   { return filepath.Join(b.mount, "copy") }
func (b *bench) sourcePath() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.source.Fd()) }

func oursCopy(ctx context.Context, b *bench) (err error) {
	src, err := copier.OpenSource(b.sourcePath(), true)
	if err != nil {
		return err
	}
	defer func() { _ = src.File.Close() }()
	dst, err := os.OpenFile(b.copyPath(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = dst.Close() }()
	result, err := copier.Copy(ctx, dst, src, nil)
	if err != nil || result.Proven {
		return err
	}
	_, err = copier.Compare(ctx, src, dst, copier.CompareOptions{})
	return err
}

func peerCopyCompare(ctx context.Context, b *bench) error {
	if err := command(ctx, "cp", "--sparse=always", b.sourcePath(), b.copyPath()); err != nil {
		return err
	}
	return command(ctx, "cmp", b.sourcePath(), b.copyPath())
}

func peerCopySyncCompare(ctx context.Context, b *bench) error {
	if err := command(ctx, "cp", "--sparse=always", b.sourcePath(), b.copyPath()); err != nil {
		return err
	}
	if err := command(ctx, "sync", b.copyPath()); err != nil {
		return err
	}
	return command(ctx, "cmp", b.sourcePath(), b.copyPath())
}

func peerReflink(ctx context.Context, b *bench) error {
	return command(ctx, "cp", "--reflink=always", b.sourcePath(), b.copyPath())
}

// mountXFS makes a new XFS with room for the source and one copy.
func (b *bench) mountXFS(ctx context.Context, reflink bool) (unmount func(), err error) {
	image := filepath.Join(b.dir, "xfs")
	b.mount = filepath.Join(b.dir, "mnt")
	if err := os.MkdirAll(b.mount, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, 2*b.bytes+512<<20); err != nil {
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

// makeSource writes the file, deletes it and keeps it open.
func (b *bench) makeSource() error {
	f, err := os.Create(filepath.Join(b.mount, "source"))
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, rand.Reader, b.bytes); err != nil {
		_ = f.Close()
		return err
	}
	b.source = f
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Remove(f.Name())
}

// forget removes the last copy and drops the source's pages, as QEMU with
// cache=none leaves none.
func forget(_ context.Context, b *bench) error {
	if err := os.Remove(b.copyPath()); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := unix.Syncfs(int(b.source.Fd())); err != nil {
		return err
	}
	return unix.Fadvise(int(b.source.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}
