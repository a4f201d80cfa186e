// Package selection finds out which instances a command is about: by the domains' own
// metadata offline, by Nova joined with the scans of hosts online, or by a backup.
//
// May call: recover, manifest, scan.
//
// Invariants: every instance that was named is there or the command stops; where Nova and
// libvirt disagree about an instance it is shown and left alone.
package selection
