// Package novaconf reads nova.conf as the host's nova-compute reads it: from the files that
// the running process was started with, seen as that process sees them (it may live in a
// container), or else from those that it would read by default.
//
// The rules are oslo.config's (oslo_config/cfg.py and iniparser.py), and Nova's own defaults
// are not known here, except for those of the two settings that os-rescue needs.
//
// May call: recover, recover/plainfile, recover/procfs.
//
// Invariants: every read is bounded, waits for nobody, and takes regular files alone. A
// setting says where it was set.
package novaconf
