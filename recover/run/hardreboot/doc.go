// Package hardreboot has Nova reboot an instance and waits until its QEMU runs on the
// files that it should have. Of an instance on another host Nova's word is enough.
//
// May call: recover, journal, run/guest, run/staging, run/task.
//
// Invariants: an instance that is rebooting is waited for, not rebooted again; once a reboot
// was asked for a wish to stop is no longer heard; a QEMU that holds lost files is not ended.
package hardreboot
