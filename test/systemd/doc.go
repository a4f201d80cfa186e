// Package systemd runs a test under a real systemd: process 1 of PID, mount, IPC,
// UTS and control group namespaces of the test's own, with no units but those that
// the test installs. Units run as on a machine: with the descriptor store, the
// watchdog and the sandbox. A test binary enters with
//
//	func TestMain(m *testing.M) { systemd.Main(m) }
//
// and then
//
//	systemd.Install(t, "hello.service", text)
//	systemd.Ctl(t, "start", "hello.service")
//
// The root file system is a ground of the test's own (package ground), so the machine's
// systemd, if it has one, is neither seen nor touched. Everything that was started or
// mounted ends with the test binary, however it ends; an empty control group stays when
// it is killed with SIGKILL. It needs root and the package systemd.
package systemd
