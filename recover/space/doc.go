// Package space knows how much room there is: whether a plan's copies fit with the
// headroom that must stay free, and where copies are clones and need none.
//
// May call: recover, beneath.
//
// Invariants: it is asked when a plan is made, before the first pause; what counts is the
// allocated space of a file, without its holes; an instance that would fill a file system,
// and so pause the healthy guests on it, is refused.
package space
