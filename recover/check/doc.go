// Package check reports a host's health, for monitoring: facts, then one small function
// per finding, then the worst level.
//
// May call: recover, guard, pin, runs.
//
// Invariants: what could not be looked at is UNKNOWN and never OK (a guard that does not answer
// is a WARNING, because a scan takes its place); a finding is one line with what to do next;
// nothing is changed.
package check
