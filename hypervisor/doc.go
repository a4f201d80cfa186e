// Package hypervisor is what os-rescue knows of libvirt: it reads the domains of
// this host with their disk chains, logs, labels and jobs, hears when they change,
// and suspends, resumes, freezes, destroys and starts them.
//
// Client satisfies recover.Hypervisor over one connection, which it opens again
// when the daemon restarts. A process that uses it calls StartEventLoop first:
// without libvirt's event loop nothing would notice a daemon that hangs.
//
// Importing libvirt.org/go/libvirt turns off the C library's habit of printing
// every error to stderr (its error.go), so errors are seen once, as Go errors.
package hypervisor
