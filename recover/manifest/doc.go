// Package manifest knows a backup's directory: manifest.json, and where each file lies in
// it. The directory alone is enough to restore from.
//
// May call: recover.
//
// Invariants: a manifest whose paths could lead anywhere but to where they say is refused
// as a whole; a complete manifest stands at its path at any moment.
package manifest
