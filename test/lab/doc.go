// Package lab runs real libvirtd, virtlogd and QEMU, with tiny guests that can
// tell whether anything of theirs was lost, for tests and demonstrations.
//
// Everything happens in mount, PID and IPC namespaces of its own, on a root file
// system of its own (package ground): a lab uses every default path (/var/lib/nova,
// /run/libvirt, /var/lib/os-rescue, ...), leaves nothing on the machine, however it
// ends, and is not disturbed by what happens there. A test binary enters them with
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
// and then each test takes a lab of its own, one at a time:
//
//	l := lab.New(t, lab.Options{})
//	guest := l.Boot(t, lab.Spec{})
//	l.DeleteTree(t)
//	guest.WaitBeat(t, guest.LastBeat()+2)
//
// The guests are emulated in software (TCG); /dev/kvm is never used. It needs
// root and the packages of packages.txt, which test/install.sh installs.
package lab
