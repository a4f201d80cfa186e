package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// IDsInUse returns every user ID and group ID that a process has, in whatever role ("Uid:",
// "Gid:" and "Groups:" in /proc/PID/status, proc_pid_status(5)). proc is Dir.
func IDsInUse(proc string) (map[uint32]bool, error) {
	pids, err := All(proc)
	if err != nil {
		return nil, err
	}
	ids := map[uint32]bool{}
	for _, pid := range pids {
		status, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "status"))
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		noteIDs(string(status), ids)
	}
	return ids, nil
}

func noteIDs(status string, ids map[uint32]bool) {
	for _, key := range []string{"Uid", "Gid", "Groups"} {
		for _, field := range statusFields(status, key) {
			if id, err := strconv.ParseUint(field, 10, 32); err == nil {
				ids[uint32(id)] = true
			}
		}
	}
}

// statusFields returns what /proc/PID/status says of a key; nil when it says nothing.
func statusFields(status, key string) []string {
	for line := range strings.Lines(status) {
		if name, rest, _ := strings.Cut(line, ":"); name == key {
			return strings.Fields(rest)
		}
	}
	return nil
}

// EffectiveIDs returns the user ID and the group ID that a process acts as: the second ones.
func (p *Process) EffectiveIDs() (uid, gid uint32, err error) {
	status, err := readProc(p.path("status"))
	if err != nil {
		return 0, 0, err
	}
	var ids [2]uint32
	for n, key := range []string{"Uid", "Gid"} {
		fields := statusFields(string(status), key)
		if len(fields) < 2 {
			return 0, 0, errors.Join(p.Alive(), fmt.Errorf("process %d: its status tells no IDs", p.Identity.PID))
		}
		id, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			return 0, 0, err
		}
		ids[n] = uint32(id)
	}
	return ids[0], ids[1], nil
}
