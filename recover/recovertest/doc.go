// Package recovertest is what the tests of every package stand on that works
// through the ports of package recover: a fake hypervisor, a fake Nova, a compute
// node with guests, and the suites that say what an implementation of a port must
// do.
//
// The fakes:
//
//   - FakeHypervisor knows domains. The QEMU of an active one is a real process
//     that holds real files, and so is its virtlogd: what a scan finds in /proc, and
//     what is lost when the process ends, is as on a compute node.
//   - FakeCloud is a Nova whose hard reboots and stops do to those domains what
//     Nova's do to real ones.
//   - Host is a state directory with its keeper, an instances directory and both
//     fakes; Guest is one instance in it with the content that its files must have.
//
// The suites, TestHypervisor and TestCloud, hold the sentences of the comments in
// package recover as assertions. The fakes pass them here, libvirt and QEMU in
// package hypervisor, Nova's recorded answers in package nova: what is tested on a
// fake holds on the real one as far as the port speaks of it.
//
// What holds in this package:
//
//   - It imports package recover for its ports and nouns, and the packages below it
//     that know none of them. It knows no engine, so that every test can use it.
//   - A fake does nothing by itself and takes no time. A task of Nova, or a mirror
//     without a limit, goes one step further each time that somebody looks at it.
//   - A method of a fake changes everything or nothing, under one lock. Exported
//     fields may be set before the fake is used, and later in Change.
//   - Every process and file that a fake makes ends with the test.
//
// A test binary whose tests use a Host calls Main in its TestMain.
//
// May call: recover, keeper.
package recovertest
