// Package scan looks at the domains of a host and at the files that they need, and says of
// each file where it stands and of each instance what that means.
//
//	for each domain:
//	    what its definition names  (definition), what the keeper and the guard hold (pinned)
//	    what its QEMU has open, and virtlogd for its log    (look, virtlogd, openfile)
//	    which open file is which of the definition's        (match)
//	    the facts about each file, for package verdict      (classify, explain)
//	    for who waits: replaced files' content, directories' owners  (thorough)
//	    the verdict; what is still possible if it is lost    (package verdict, lost)
//
// Domains that only Nova or only the guard still knows are scanned too (novaonly,
// inventoryonly).
//
// May call: recover, beneath, copier, identity, inventory, owners, pin, plainfile, procfs, qcow2,
// runs, verdict.
//
// Invariants: a scan changes nothing and opens no file that an image names; what could not
// be found out is said, and never becomes VerdictIntact; trouble with one domain is in that
// domain's instance, and the others are scanned.
package scan
