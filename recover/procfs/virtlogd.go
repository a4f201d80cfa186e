package procfs

import (
	"fmt"
	"path/filepath"
)

// Virtlogd is the command name of the process that holds the console logs.
const Virtlogd = "virtlogd"

// logSocketDir is where libvirt finds virtlogd: its socket is there
// (src/logging/log_manager.c, virLogManagerDaemonPath; RUNSTATEDIR is /run).
const logSocketDir = "/run/libvirt"

// IsLogDaemon is true for libvirt's log daemon: root's virtlogd that sees the same directory as
// libvirt, whose root tree is, where its socket is and at instancesPath. What else its mount
// namespace has of its own is no matter: a unit's sandbox makes another one, and a container of
// libvirt's has the daemon inside. why is for an operator: that it is root's, and does not count.
func IsLogDaemon(p *Process, tree Root, instancesPath string) (is bool, why error) {
	if p.Command != Virtlogd || !p.IsUser(0) { // another program, or one that anybody has called so
		return false, nil
	}
	own, err := OpenRoot(p.Root())
	if err != nil {
		return false, fmt.Errorf("what it sees as / can't be looked at: %w", err)
	}
	defer own.Close()
	for _, dir := range []string{logSocketDir, instancesPath} {
		same, err := own.SamePlace(tree, filepath.Join(dir, "x"))
		if err != nil {
			return false, fmt.Errorf("what it sees at %s can't be looked at: %w", dir, err)
		}
		if !same {
			return false, fmt.Errorf("it sees another %s than libvirt", dir)
		}
	}
	return true, nil
}
