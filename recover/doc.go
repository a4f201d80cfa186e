// Package recover brings back the files of instances whose files were deleted
// while their QEMU still holds them open.
//
// It is the heart of os-rescue: it scans what a host's processes hold, pins
// what is lost, plans, copies, proves, publishes and journals. It knows neither
// libvirt nor HTTP: what it needs of them it states as interfaces in ports.go,
// and the packages hypervisor and nova satisfy them. It prints nothing: it logs
// through the logger in the context and reports progress through Progress.
package recover
