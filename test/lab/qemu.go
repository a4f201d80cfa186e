package lab

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// QemuPID returns the pid of the QEMU of a domain, by the domain's name; 0 when it does
// not run. libvirtd is not asked: it may be down.
func QemuPID(domain string) int {
	body, err := os.ReadFile("/run/libvirt/qemu/" + domain + ".pid")
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if err != nil || syscall.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}
