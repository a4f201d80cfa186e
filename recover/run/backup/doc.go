// Package backup keeps a run's copies in a directory in the layout of the manual way:
// DIR/UUID/disk, DIR/_base/SHA1, DIR/manifest.json.
//
// May call: recover, beneath, copier, journal, manifest, run/guest, run/staging,
// run/task, statedir.
//
// Invariants: no backup is overwritten; a file is in the manifest only after it was compared
// in full; what an interrupted try has made and the manifest does not name is removed.
package backup
