// Package manifest knows a backup's directory: manifest.json, and where each file lies in
// it. The directory alone is enough to restore from.
//
// May call: recover, beneath, plainfile.
//
// Invariants: a manifest is refused as a whole if a path in it is not clean, or leads out of
// the backup's directory where it must not; a copy is named by the path of its original
// alone, so that two instances with one backing file share the copy.
package manifest
