// Package journal is the only reader and writer of a run's journal: the format of its
// records, the names of the steps, what each record carries, and what the records of one
// instance mean together (History).
//
// May call: recover, beneath, copier, identity, procfs, statedir.
//
// Everybody else writes records with a Writer and asks the functions and History what
// they mean; nobody else decodes a record's data.
//
// Invariants: a record is on disk before the next thing happens; only the last line may be
// torn, and is passed over; what a later try did counts instead of what an earlier one did.
// The format is documented in docs/reference.md: an old journal stays readable.
package journal
