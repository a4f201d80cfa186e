// Package verify reads a backup again, in full, and says what of it could be restored.
//
// May call: recover, copier, manifest, qcow2.
//
// Invariants: nothing is changed but, for the time of a check by qemu-img, the owner of one
// copy; no symlink in the backup is followed; a file that could not be read or checked is
// never called good; a copy that instances share is read once.
package verify
