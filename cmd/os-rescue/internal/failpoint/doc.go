// Package failpoint makes a run fail at a named point, for tests of what is left
// behind. Only binaries built with the tag failpoint have it.
package failpoint
