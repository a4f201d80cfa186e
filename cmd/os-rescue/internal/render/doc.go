// Package render writes the results of the commands: as text that a person reads at
// three in the morning, or as JSON that scripts depend on.
//
// May call: cmd/os-rescue/internal/console, recover, check, guard, leftover, pin, printable, verify.
package render
