// Package recover states what the rooms below it share: the nouns (an instance and its
// files as a scan finds them, a plan, a report, a domain), the ports (Hypervisor, Cloud,
// Progress) that hypervisor, nova and the command line meet, the settings and the errors.
//
// It is the ground of the engine and does nothing by itself. The rooms are packages of
// their own; CONTRIBUTING.md lists them from the bottom up. The package is called as the
// builtin function is, which nobody here needs: an importer that recovers from a panic
// imports it under another name.
//
// May call: nothing of ours.
//
// Invariants: no noun here knows how it came about; what crosses into JSON has a tag, and
// what does not is "-"; an error that a caller may test for is a variable in errors.go or
// beside its port.
package recover
