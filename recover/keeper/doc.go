// Package keeper is the process that outlives os-rescue.
//
// Linux keeps a deleted file for as long as one process has it open. The keeper
// is that process: it holds read-only descriptors of files that would otherwise be
// lost when their QEMU ends. It holds each for one or more owners (instances), until
// the last owner releases it. It has its own session, ignores hang-ups and
// interrupts, is protected from the OOM killer, leaves the cgroup in which it was
// started, and ends by itself when there is nothing left to hold.
//
// Start finds the running keeper or starts one, Connect only finds it, and Serve is
// the keeper's main function. A guard serves the same protocol over its own holdings
// (ListenGuard, ConnectGuard). Client and keeper talk over a SOCK_SEQPACKET Unix
// socket in a directory that only root can write. A message is one JSON object with
// at most one descriptor (SCM_RIGHTS).
//
// SIGTERM ends the keeper, and the files that only it still held are lost. systemd
// sends SIGTERM to every remaining process when the host shuts down, and waits for
// them; a keeper that ignored it would only delay the shutdown.
//
// May call: recover, identity, plainfile, printable.
//
// Invariants:
//
//   - A state directory has at most one keeper and one guard that answer: each holds a lock
//     file until its socket is gone. A keeper that does not answer loses its place to another
//     one, and is found by its process (Find), as is one whose state directory was removed.
//   - Nobody but root is answered, and no socket but one of root's is trusted.
//   - Every held descriptor is of a regular file and open for reading only, or of one that
//     no name leads to; nothing is ever written or moved through it.
//   - Hold returns nil only when the server has its own descriptor; a file is closed
//     only when its last owner has released it.
//   - A keeper does not end by itself while it holds a file or has a client.
package keeper
