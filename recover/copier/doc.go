// Package copier copies the bytes of an open inode and proves the copy.
//
// A source is read as QEMU wrote it: with O_DIRECT exactly where QEMU's
// descriptor has it, because on some file systems a buffered descriptor returns
// old content. Copy clones where that is safe and reads extent by extent
// elsewhere; Compare reads both sides in full and says whether they are equal.
// Memory stays at a few MiB whatever the size of the file.
//
// copy_file_range is not used: it may return 0 before the end or succeed without
// copying, never looks for zeros, and never bypasses the page cache
// (copy_file_range(2), "BUGS" and "NOTES").
package copier
