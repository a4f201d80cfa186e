// Package plan decides what a run will do to each chosen instance, and says so in words.
// It only looks.
//
// One maker per command makes the plans of single instances; what Nova's state forbids
// (nova), what live mode can't do (live) and where files may go (files) are asked by all of
// them.
//
// May call: recover, beneath, copier, manifest, owners, pin, procfs, qcow2, scan,
// selection, space.
//
// Invariants: whatever can be foreseen is a refusal here, before the first pause; the least
// that helps is planned: only a lost writable disk justifies a pause or a destroy; a plan
// made twice of the same state is the same.
package plan
