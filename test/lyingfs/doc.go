// Package lyingfs is a FUSE file system for tests whose buffered reads lie.
//
// It passes everything through to a backing directory, with one fault: a write
// through a descriptor with O_DIRECT is not visible to buffered descriptors. These
// go on reading the content of the last buffered write, although size, link count
// and blocks are the true ones. A CephFS FUSE client was seen to do this with a
// running instance's disk: qemu-img had made it with buffered writes, QEMU then wrote
// it with O_DIRECT (cache=none), and a buffered read returned it as it was made.
//
// May call: nothing of ours.
//
// Invariants:
//
//   - A descriptor with O_DIRECT always reads the true content.
//   - Size, link count, blocks, owners and modes are the true ones in every view.
//
// The mount can also be told to refuse new O_DIRECT opens with EINVAL, while the
// descriptors that are open keep working.
//
// It can silly-rename as well: a file that is deleted while it is open keeps a
// hidden name until it is closed, and its directory can't be removed.
//
// It can refuse to open a deleted file anew (KeepClosed), as GlusterFS does after another
// client's delete, and it can forget deleted files altogether (Forget), as an NFSv3 server does.
//
// It can stop answering (Hang), as a dead server does.
//
// It supports all that QEMU and libvirt need: locks (the kernel's own, because the
// server implements none), fallocate, SEEK_DATA and SEEK_HOLE, rename without
// replacing, owners and modes checked by the kernel, and files without a name that
// exist while a descriptor is open. Extended attributes are not supported.
package lyingfs
