// Package lyingfs is a FUSE file system for tests whose buffered reads lie.
//
// It passes everything through to a backing directory, with one fault: what is
// written through a descriptor opened with O_DIRECT never reaches the view that
// buffered descriptors read. They go on seeing the file as buffered writers left
// it, although its size, its link count and its blocks are the true ones. A
// CephFS FUSE client has been seen to treat a running instance's disk like this:
// created with buffered writes by qemu-img, then written with O_DIRECT by QEMU
// (cache=none), it read back as it was created.
//
// The mount can also be told to refuse new O_DIRECT opens with EINVAL, while the
// descriptors that are open keep working.
//
// It can silly-rename as well: a file that is deleted while it is open keeps a
// hidden name until it is closed, and its directory can't be removed.
//
// It carries what QEMU and libvirt need: locks (the kernel's own, as the server
// asks for none), fallocate, SEEK_DATA and SEEK_HOLE, rename without replacing,
// owners and modes checked by the kernel, and files that live on without a name
// for as long as a descriptor is open. Extended attributes are not supported.
package lyingfs
