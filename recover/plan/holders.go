package plan

import (
	"fmt"
	"os/user"
	"strconv"

	"github.com/os-rescue/os-rescue/recover/procfs"
)

// warnOfHolders says whose the processes are that the operator named: anybody's process may have
// a QEMU's name, and what it has open is taken for the instance's.
func warnOfHolders(pids []int, warn func(format string, args ...any)) {
	for _, pid := range pids {
		h, err := procfs.Open(procfs.Dir, pid)
		if err != nil {
			warn("--holder %d: %v", pid, err)
			continue
		}
		warn("--holder %d is %s of %s: files are taken from it as it has them", pid, h.Command, ownerOf(h))
		h.Close()
	}
}

// ownerOf names the user that a process acts as.
func ownerOf(h *procfs.Process) string {
	uid, _, err := h.EffectiveIDs()
	if err != nil {
		return fmt.Sprintf("an unknown user (%v)", err)
	}
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return fmt.Sprintf("the user %s (%s)", u.Username, id)
	}
	return "the user " + id
}
