// Package startable says why a domain would not start again on this host, although its
// disks are in place: it is asked before the domain's QEMU is ended.
//
// May call: recover, procfs.
//
// Invariants: it changes nothing; what it can't find out is no obstacle.
package startable
