// Package render writes what commands found and did: as text that a person
// reads at three in the morning, or as JSON that scripts depend on.
package render
