// Package ground gives a mount namespace a root file system of its own, on which a
// test can act as if the machine were its own:
//
//	options, err := ground.Here(ctx)          // this program, its source tree, Go
//	options.Users = []ground.User{{Name: "nova", Home: "/var/lib/nova"}}
//	err = ground.Pivot(ctx, options)          // in new mount and PID namespaces
//
// What a ground consists of:
//
//   - /usr, /bin, /sbin, /lib* and /boot are the machine's, read-only.
//   - /etc is a copy, with the users and groups that Options name. Accounts that the
//     machine has keep their ids; the others get ids that are free on it.
//   - /var, with /var/tmp, is new and empty, by default on a disk (Options.Disk).
//   - /dev has its own nodes, /dev/kvm among them when the machine has one.
//   - /proc and /sys are new mounts. No control groups are mounted.
//   - /run, /tmp, /opt, /srv, /home and the home directory of the user are empty.
//   - What Options.Dirs, Binds and Copies name is added.
//
// Everything else of the machine is gone: the old root is unmounted. Each mount point
// lies on the ground's own file systems, so nothing that the machine removes, renames
// or installs later can detach a mount, and any number of grounds stand side by side.
// The kernel frees a ground with the last process in its mount namespace.
//
// It needs root with CAP_SYS_ADMIN and CAP_MKNOD, and Linux 5.12.
package ground
