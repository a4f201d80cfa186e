// Package nearest finds the known word that is nearest to a mistyped one.
package nearest
