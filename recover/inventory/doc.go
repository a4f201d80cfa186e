// Package inventory keeps what libvirt and Nova may forget of an instance: its definition
// and the content of small files that nobody holds; and the host's compute_id. The guard
// writes it, a scan reads it.
//
// May call: recover, beneath, identity, plainfile, statedir.
//
// Invariants: a record is whole or not there; one that can't be read is an error beside the
// others, not instead of them; nothing here follows a path out of a record.
package inventory
