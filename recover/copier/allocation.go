package copier

import (
	"encoding/binary"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KeepAllocation reserves space in dst, a copy of src, where src has it reserved and not
// written: a disk that Nova or its operator preallocated stays so. No content and no size
// changes, and dst may be in use. Where the file system can't tell what is reserved
// (ioctl_fiemap(2)), a source that takes as much space as its size is reserved in full, and
// any other not at all. A file system that can't reserve space is no error; syscall.ENOSPC
// or EDQUOT when there is none.
func KeepAllocation(dst *os.File, src Source) error {
	from, err := src.stat()
	if err != nil {
		return err
	}
	spans, err := src.reserved(from)
	if err != nil && from.size > 0 && from.allocated >= from.size {
		spans = []span{{off: 0, end: from.size}}
	}
	for _, sp := range spans {
		if err := reserve(dst, sp); err != nil {
			return err
		}
	}
	return nil
}

// CloneReserves is how much space a clone of the source has to reserve of its own, in
// bytes: on XFS what the source has reserved, on other file systems what it has reserved
// behind its end, because a clone shares the rest. 0 where the file system can't tell.
func (s Source) CloneReserves() int64 {
	from, err := s.stat()
	if err != nil {
		return 0
	}
	fs, err := fileSystemOf(s.File)
	if err != nil {
		return 0
	}
	spans, _ := s.reserved(from)
	n := int64(0)
	for _, sp := range spans {
		if fs.name != "xfs" {
			sp.off = max(sp.off, roundUp(from.size, blockSize))
		}
		n += max(0, sp.end-sp.off)
	}
	return n
}

// reserved returns the spans of a file that were never written. Behind the end of the file space can be
// reserved too (FALLOC_FL_KEEP_SIZE, which Nova's preallocate_images uses), except on XFS,
// which does that by itself for files that grow. The error means that the file system can't
// tell.
func (s Source) reserved(st stat) ([]span, error) {
	fs, err := fileSystemOf(s.File)
	if err != nil {
		return nil, err
	}
	var spans []span
	err = extents(s.File, func(sp span, written bool) {
		if fs.name == "xfs" {
			sp.end = min(sp.end, st.size)
		}
		if !written && sp.end > sp.off {
			spans = append(spans, sp)
		}
	})
	return spans, err
}

func reserve(dst *os.File, sp span) error {
	for {
		err := unix.Fallocate(int(dst.Fd()), unix.FALLOC_FL_KEEP_SIZE, sp.off, sp.end-sp.off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EIO):
			return &os.PathError{Op: "reserve space in", Path: dst.Name(), Err: err}
		}
		return nil // done, or not possible here
	}
}

// From the kernel's include/uapi/linux/fiemap.h and fs.h.
const (
	ioctlFiemap     = 0xc020660b // FS_IOC_FIEMAP
	extentLast      = 1 << 0     // FIEMAP_EXTENT_LAST
	extentUnwritten = 1 << 11    // FIEMAP_EXTENT_UNWRITTEN
	fiemapHeader    = 32         // bytes of struct fiemap
	fiemapExtent    = 56         // bytes of struct fiemap_extent
	extentsPerCall  = 512

	flagCompress = 0x4      // FS_COMPR_FL
	flagNoCow    = 0x800000 // FS_NOCOW_FL
)

// extents calls each with the extents of a file in order, those behind its size too.
func extents(f *os.File, each func(sp span, written bool)) error {
	buffer := make([]uint64, (fiemapHeader+extentsPerCall*fiemapExtent)/8)
	data := unsafe.Slice((*byte)(unsafe.Pointer(&buffer[0])), len(buffer)*8)
	ne := binary.NativeEndian
	for start := uint64(0); ; {
		clear(data[:fiemapHeader])
		ne.PutUint64(data[0:], start)
		ne.PutUint64(data[8:], ^uint64(0)-start)
		ne.PutUint32(data[24:], extentsPerCall)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlFiemap, uintptr(unsafe.Pointer(&data[0])))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		found := ne.Uint32(data[20:])
		for n := range found {
			e := data[fiemapHeader+n*fiemapExtent:]
			off, length, flags := ne.Uint64(e), ne.Uint64(e[16:]), ne.Uint32(e[40:])
			each(span{off: int64(off), end: int64(off + length)}, flags&extentUnwritten == 0)
			if start = off + length; flags&extentLast != 0 {
				return nil
			}
		}
		if found == 0 {
			return nil
		}
	}
}

// TakeOver gives dst, which is empty, the properties of src that can be set only then: on
// btrfs whether it is written in place (chattr +C, FS_NOCOW_FL). A clone needs both sides
// alike. Where that can't be read or set, nothing changes.
func TakeOver(dst *os.File, src Source) error {
	fs, err := fileSystemOf(dst)
	if err != nil || fs.name != "btrfs" {
		return err
	}
	want, err := unix.IoctlGetUint32(int(src.File.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return nil //nolint:nilerr // on another file system than btrfs it may not exist
	}
	have, err := unix.IoctlGetUint32(int(dst.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || (have^want)&flagNoCow == 0 {
		return nil //nolint:nilerr // as above
	}
	flags := have&^flagNoCow | want&flagNoCow
	if flags&flagNoCow != 0 {
		flags &^= flagCompress // inherited from the directory; btrfs takes only one of the two
	}
	_ = unix.IoctlSetPointerInt(int(dst.Fd()), unix.FS_IOC_SETFLAGS, int(flags))
	return nil
}
