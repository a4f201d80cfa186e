// Package copier copies the bytes of an open inode and proves the copy.
//
// Copy clones where that is safe and reads extent by extent elsewhere; Compare
// reads both sides in full and reports whether they are equal. Ahead copies while
// the guest still writes, and Finish then makes that copy equal and proves it. A
// source's Mark tells later whether it was written since, and Verify whether a copy
// is still what was proven. Memory stays at a few MiB, and 32 MiB more for a TiB.
//
// May call: nothing of ours.
//
// Invariants:
//
//   - A source is read as QEMU wrote it: with O_DIRECT exactly where QEMU's
//     descriptor has it, because on some file systems a buffered descriptor
//     returns old content.
//   - A source is never written. One that is a duplicate of QEMU's descriptor is only
//     read at offsets.
//   - A copy counts as proven only if every byte of it was read back from the disk
//     and compared with the source, or if it is a clone on a file system that is
//     known to be coherent.
//   - A successful copy has been fsynced. Its directory is the caller's to sync.
//
// copy_file_range is not used: it may return 0 before the end or succeed without
// copying, never looks for zeros, and never bypasses the page cache
// (copy_file_range(2), "BUGS" and "NOTES").
package copier
