package hypervisor

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// runDir is the directory in which libvirt's QEMU driver keeps NAME.pid.
type runDir string

// pid is what the pid file of an active domain says, and 0 when it is missing or
// says nothing: then package recover finds no process and tells so.
func (d runDir) pid(name string) int {
	if name == "" || strings.ContainsRune(name, '/') { // libvirt forbids the slash
		return 0
	}
	f, err := os.Open(filepath.Join(string(d), name+".pid"))
	if err != nil {
		return 0
	}
	defer f.Close()
	const most = 32
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}
