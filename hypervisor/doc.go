// Package hypervisor implements recover.Hypervisor with libvirt. It reads the
// domains of this host with their disk chains, logs, labels and jobs, reports their
// changes, and suspends, resumes, freezes, destroys, starts and mirrors them.
//
// Client opens one connection for each call in progress, and opens it again when the
// daemon restarts. A process that uses it calls StartEventLoop first: without
// libvirt's event loop nothing would notice a daemon that hangs.
//
// Importing libvirt.org/go/libvirt stops the C library from printing every error to
// stderr (its error.go), so each error is reported once, as a Go error.
//
// May call: recover, recover/plainfile.
//
// Invariants:
//
//   - A call that changes state is issued only while the domain is not yet in the
//     state that it leads to. It is repeated after a broken connection only if the
//     domain is still not there.
//   - A connection serves one call at a time.
//   - A context ends the wait for a call that only reads; the call itself is left to
//     finish, because libvirt can't cancel it. A change that has been issued is
//     followed until its outcome is known.
//   - Secrets in a domain's XML appear in no log and no error.
package hypervisor
