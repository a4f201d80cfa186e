// Package runtest is a host with an engine on it for tests: a recovertest.Host whose runs
// are made, crashed at a journal point and resumed by package run.
//
// May call: recover, journal, pin, recovertest, run, runs, scan, statedir.
//
// Invariants: a run that crashes stands still for ever at a journal point, and the host's lock is
// dropped, so that everything is as a kill -9 would leave it; nothing of one test's host is seen
// by another's.
package runtest
