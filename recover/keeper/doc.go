// Package keeper is the process that outlives os-rescue.
//
// Linux keeps a deleted file for as long as one process has it open. The keeper
// is that process: it holds read-only descriptors of files that would otherwise
// be gone with the next QEMU that ends, each for one or more owners (instances),
// until the last owner releases it. It has a session of its own, ignores hang-ups
// and interrupts, is protected from the OOM killer, leaves the cgroup of whoever
// started it, and ends by itself when there is nothing left to hold.
//
// Start finds the running keeper or starts one, Connect only finds it, Serve is
// the keeper's own main. They talk over a SOCK_SEQPACKET Unix socket in a
// directory that only root can write: one JSON object a message, at most one
// descriptor with it (SCM_RIGHTS), and nobody but root is answered.
//
// SIGTERM ends the keeper, and with it whatever only it still held. That is for
// the shutdown of the host, where systemd sends it to every process left and
// waits for them; ignoring it would only delay the inevitable.
package keeper
