// Package plan decides what a run will do to each chosen instance, and says so in words.
// It only looks.
//
// One maker per command makes the plans of single instances: rescue, backup, restore,
// hardreboot. They share what Nova's state forbids (nova) and where files may go (files); a
// rescue asks what mode live can't do (live) as well.
//
// May call: recover, beneath, copier, manifest, owners, pin, procfs, qcow2, scan,
// selection, space, startable.
//
// Invariants: what can be foreseen is a refusal here, before the first pause; a rescue is
// planned as the least that helps: only a lost file that the guest writes justifies a pause
// or a destroy; an instance that can't be worked on stops nobody else's plan.
package plan
