// Package recover brings back the deleted files of instances while their QEMU still
// holds them open.
//
// It is the core of os-rescue: it scans what a host's processes hold, pins lost files,
// plans, copies, proves, publishes, and keeps a journal. It knows neither libvirt nor
// HTTP: it states what it needs of them as the interfaces Hypervisor and Cloud, which the
// packages hypervisor and nova implement. It prints nothing: it logs through the logger
// in the context and reports progress through Progress.
//
// Its name shadows the builtin function recover in files that import it.
package recover
