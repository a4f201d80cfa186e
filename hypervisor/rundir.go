package hypervisor

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// runDir is the directory in which libvirt's QEMU driver keeps NAME.pid.
type runDir string

// pid is what the pid file of an active domain says, and 0 when it is missing or
// says nothing: then package recover finds no process and tells so.
func (d runDir) pid(name string) int {
	if name == "" || strings.ContainsRune(name, '/') { // libvirt forbids the slash
		return 0
	}
	// From libvirt 10 on the directory belongs to QEMU's user.
	text, err := plainfile.Read(filepath.Join(string(d), name+".pid"), plainfile.Rules{Most: 32})
	if err != nil {
		return 0
	}
	return parsePID(string(text))
}

// parsePID returns the number in a pid file; 0 for what can be none of a process.
func parsePID(text string) int {
	pid, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32) // pid_t
	if err != nil || pid <= 0 {
		return 0
	}
	return int(pid)
}
