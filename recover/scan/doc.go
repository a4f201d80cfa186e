// Package scan looks at the domains of a host and at the files that they need, and says of
// each file where it stands and of each instance what that means.
//
//	for each domain:
//	    what its definition names  (definition), what the keeper and the guard hold (pinned)
//	    what its QEMU holds, and virtlogd for its log       (look, virtlogd)
//	    each file: present, deleted, replaced, displaced, missing  (classify)
//	    the verdict, its reasons, what is still possible     (verdict)
//
// Domains that only Nova or only the guard still knows are scanned too (novaonly,
// inventoryonly).
//
// May call: recover, inventory, pin, procfs, qcow2, runs.
//
// Invariants: a scan changes nothing and opens no file that an image names; what could not
// be found out is said, and never becomes VerdictIntact; trouble with one domain is in that
// domain's instance, and the others are scanned.
package scan
