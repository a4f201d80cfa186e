// Package beneath handles files in trees that somebody else can write.
//
// The nova user owns /var/lib/nova/instances and everything under it, and
// os-rescue is root: a path there can name something else at every look. So a
// path is walked once, component by component, and what it led to is held as a
// descriptor; after that every act is done by descriptor. Renaming or replacing
// a directory under us then changes nothing about which directory we act in.
//
// A symlink is followed only when no one but root can have made it, moved it or
// put it in place: it and every directory from the root down to it belong to
// uid 0 and are writable by nobody else. An administrator's
// /var/lib/nova -> /srv/nova is such a link. Whatever else is a symlink is a
// *SymlinkError. That whole chain is asked for, and not only the directory
// that holds the link, because who can write a directory can rename the ones in
// it, root's too, and so choose which of root's symlinks a path meets.
//
// Nothing here ever replaces a name that exists.
package beneath
