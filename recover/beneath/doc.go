// Package beneath handles files in trees that somebody else can write.
//
// The nova user owns /var/lib/nova/instances and everything under it, and
// os-rescue is root: the same path can name a different file each time it is
// looked up. So a path is walked once, component by component, and the directory
// at its end is held as a descriptor; after that every operation uses the
// descriptor. If somebody renames or replaces a directory meanwhile, we still act
// in the directory that we opened.
//
// May call: identity, plainfile.
//
// Invariants:
//
//   - A symlink is followed only when nobody but root can have made it, moved it
//     or put it in place: it and every directory from the root down to it belong
//     to uid 0 and are writable by nobody else. An administrator's
//     /var/lib/nova -> /srv/nova is such a link. Any other symlink is a
//     *SymlinkError. The whole chain is checked, not only the directory that
//     holds the link: a user who can write a directory can rename the directories
//     in it, root's too, and so choose which of root's symlinks a path meets.
//   - No name that exists is ever replaced.
//   - A new directory has its owner and mode before anyone but root can enter it.
//   - Every descriptor is close-on-exec.
package beneath
