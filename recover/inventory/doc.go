// Package inventory keeps what libvirt and Nova may forget of an instance: its definition
// and the content of small files that nobody holds. The guard writes it, a scan reads it.
//
// May call: recover, beneath, statedir.
//
// Invariants: a record is whole or not there; a record that can't be read is told, and is no
// reason to scan nothing; no path out of a record is followed without its root.
package inventory
