package guard

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// orderlyTime is how soon after its domain was undefined an instance's files must be deleted
// to belong to the same deletion. A hard reboot that failed leaves files without a domain too:
// what is deleted long after that is an accident.
const orderlyTime = time.Minute

// isOrderly is true for an instance that libvirt does not know and of which everything was
// deleted in the way of a deletion by Nova; no accident looks like it:
//
//   - all of its own files are deleted, and none of them was missed while it had a domain;
//   - each was in a directory of the name UUID_del when it lost its last name: Nova renames the
//     instance's directory so before it removes it, and undefines the domain afterwards
//     (nova/virt/libvirt/driver.py, delete_instance_files and _cleanup, seen in Nova 26);
//   - its UEFI variable store, which is elsewhere, was deleted when the domain was undefined, or soon
//     after that: libvirt removes it in undefining (qemuDomainUndefineFlags in src/qemu/qemu_driver.c). A hard
//     reboot that fails does that too, so the instance's directory must be gone (judgement.isOrderly);
//   - or it was deleted after the domain had been undefined, and soon after that, as earlier
//     releases and people do it, on a file system of this host, whose times are of one clock.
//
// own are the files that are held for it, and gone is when it was seen to be undefined.
func isOrderly(uuid string, own []guardHold, gone time.Time) bool {
	own = slices.DeleteFunc(own, func(h guardHold) bool { return h.Role == recover.RoleBacking })
	return len(own) > 0 && !slices.ContainsFunc(own, func(h guardHold) bool {
		if h.Deleted.IsZero() || h.Needed {
			return true
		}
		after, ok := deletedAfter(h, gone)
		soon := ok && after < orderlyTime
		if h.Role == recover.RoleNVRAM {
			return !soon || after < -orderlyTime
		}
		return !isRemovedByNova(h, uuid) && (!soon || after <= 0)
	})
}

// deletedAfter returns how long after a moment a file was deleted; negative when it was before it,
// false when that can't be told. It is told by the file's change time, which unlink(2) sets: the
// guard notices a deletion later.
func deletedAfter(h guardHold, moment time.Time) (time.Duration, bool) {
	shared, err := copier.Shared(h.file)
	if err != nil || shared || moment.IsZero() {
		return 0, false
	}
	st, err := identity.OfFile(h.file)
	return time.Unix(st.Ctim.Unix()).Sub(moment), err == nil
}

// isRemovedByNova is true for a deleted file whose last name was in UUID_del. The kernel
// remembers it of an open file (proc(5)): the name under which this host has removed it.
func isRemovedByNova(h guardHold, uuid string) bool {
	link, err := os.Readlink(fmt.Sprintf("%s/self/fd/%d", procfs.Dir, h.file.Fd()))
	return err == nil && slices.Contains(strings.Split(link, "/"), uuid+"_del")
}
