// Package console shows a run to a person at a terminal, or in a mail from cron:
// a standard error that never makes the run wait, and progress as bars or as plain
// lines.
//
// May call: recover, printable.
package console
