// Package failpoint makes a run fail at a named point, so that tests can examine what
// it leaves behind. Only binaries built with the tag failpoint have it.
//
// May call: nothing of ours.
package failpoint
