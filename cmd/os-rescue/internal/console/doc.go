// Package console is what a person at a terminal, or a mail from cron, sees of
// a run: standard error that never makes the run wait, and progress as bars or
// as plain lines.
package console
