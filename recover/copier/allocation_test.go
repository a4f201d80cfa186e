package copier_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
)

const (
	getFlags = 0x80086601 // FS_IOC_GETFLAGS
	setFlags = 0x40086602 // FS_IOC_SETFLAGS
	noCow    = 0x800000   // FS_NOCOW_FL
)

func reserve(t *testing.T, f *os.File, mode uint32, off, n int64) {
	t.Helper()
	must(t, unix.Fallocate(int(f.Fd()), mode, off, n))
}

func TestReservedSpaceStaysReserved(t *testing.T) {
	tests := map[string]struct {
		fill func(t *testing.T, f *os.File)
		want int64 // bytes
	}{
		"a whole disk":            {func(t *testing.T, f *os.File) { reserve(t, f, 0, 0, 8*mib) }, 8 * mib},
		"a disk that was written": {func(t *testing.T, f *os.File) { reserve(t, f, 0, 0, 8*mib); write(t, f, 3*mib, random(mib)) }, 8 * mib},
		"a part of a sparse disk": {func(t *testing.T, f *os.File) {
			must(t, f.Truncate(32*mib))
			reserve(t, f, 0, 16*mib, 4*mib)
			write(t, f, 0, random(mib))
		}, 5 * mib},
		"none of a sparse disk": {func(t *testing.T, f *os.File) { must(t, f.Truncate(32*mib)); write(t, f, 0, random(mib)) }, mib},
		"behind the end": {func(t *testing.T, f *os.File) {
			write(t, f, 0, random(mib))
			reserve(t, f, unix.FALLOC_FL_KEEP_SIZE, 0, 8*mib)
		}, 8 * mib},
	}
	for _, kind := range []string{ext4, xfsNoReflink, xfsReflink, btrfs, tmpfs} {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, 400)
			for name, test := range tests {
				want := test.want
				switch {
				case name == "behind the end" && kind == xfsReflink, name == "behind the end" && kind == xfsNoReflink:
					want = mib // XFS does that by itself: it says nothing of what anybody wants
				case kind == tmpfs && (name == "a part of a sparse disk" || name == "behind the end"):
					continue // it can't tell
				}
				for _, ahead := range []bool{false, true} {
					t.Run(name, func(t *testing.T) {
						src := deleted(t, dir, false, func(f *os.File) { test.fill(t, f); must(t, f.Sync()) })
						dst := target(t, dir)
						var err error
						if ahead {
							_, _, err = copier.Ahead(t.Context(), dst, src, nil)
						} else {
							_, err = copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
						}
						must(t, err)
						if n := allocated(t, dst); n < want || n > want+mib/2 {
							t.Errorf("ahead=%t: the copy takes %d bytes, want %d; its source %d", ahead, n, want, allocated(t, src.File))
						}
						_, err = copier.Compare(t.Context(), src, dst, copier.CompareOptions{})
						must(t, err)
					})
				}
			}
		})
	}
}

// btrfs clones a file only into one that is written in the same way.
func TestADiskThatIsWrittenInPlaceOnBtrfsIsClonedAsOne(t *testing.T) {
	dir := mount(t, btrfs, 400)
	for name, c := range map[string]struct{ source, directory bool }{
		"the disk":      {source: true},
		"the directory": {directory: true},
		"both":          {source: true, directory: true},
		"neither":       {},
	} {
		t.Run(name, func(t *testing.T) {
			src := deleted(t, dir, true, func(f *os.File) {
				if c.source {
					must(t, unix.IoctlSetPointerInt(int(f.Fd()), setFlags, noCow))
				}
				write(t, f, 0, random(mib))
			})
			inside, err := os.MkdirTemp(dir, "staging-*")
			must(t, err)
			if c.directory {
				d, err := os.Open(inside)
				must(t, err)
				must(t, unix.IoctlSetPointerInt(int(d.Fd()), setFlags, noCow))
				must(t, d.Close())
			}
			dst, err := os.OpenFile(filepath.Join(inside, "copy"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			must(t, err)
			defer dst.Close()
			result, err := copier.Copy(t.Context(), dst, src, copier.CopyOptions{})
			must(t, err)
			flags, err := unix.IoctlGetUint32(int(dst.Fd()), getFlags)
			must(t, err)
			if result.Method != copier.MethodClone || (flags&noCow != 0) != c.source {
				t.Errorf("%+v, flags %#x", result, flags)
			}
		})
	}
}
