// Package space knows how much room there is: whether a plan's copies fit with the
// headroom that must stay free, where copies are clones and need none, and when a file
// system is about to fill up under a running mirror.
//
// May call: recover, beneath.
//
// Invariants: it is asked before the first pause; sparse sizes are counted; a full file
// system, which would pause the healthy guests on it, is never an acceptable end.
package space
