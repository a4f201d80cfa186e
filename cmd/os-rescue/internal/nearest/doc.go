// Package nearest finds the known word that is nearest to a mistyped one.
//
// May call: nothing of ours.
package nearest
