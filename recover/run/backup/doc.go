// Package backup keeps a run's copies in a directory in the layout of the manual way:
// DIR/UUID/disk, DIR/_base/SHA1, DIR/manifest.json.
//
// May call: recover, beneath, copier, journal, manifest, run/guest, run/staging,
// run/task.
//
// Invariants: no file is written over, and a backing file that is there already is used only if
// it is the same; an instance is in the manifest only after each of its files was compared with
// its source in full; what an interrupted try has made and the manifest does not name is removed. The
// directory may be another user's: everything is made and removed beneath it, no symlink is followed,
// and what is removed is what the run's own journal names.
package backup
