// Package nearest finds the word that a person probably meant.
package nearest
