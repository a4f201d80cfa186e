// Package house looks at the module's own packages: who calls whom, what each exports
// and what its comment promises. Its tests hold the code against that, and against what
// CONTRIBUTING.md and the linter's configuration say of it.
//
// May call: nothing of ours.
package house
