package lab

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/os-rescue/os-rescue/test/ground"
)

// hostBeside makes a host whose libvirt and QEMUs live in a container: what the lab has at
// /var/lib/nova is somewhere else there, and it has no users of Nova's and libvirt's. It
// returns the command that runs another on that host.
func hostBeside(t T) []string {
	t.Helper()
	const script = `set -e
mkdir -p /run/vol/nova_compute/_data
mount --bind /var/lib/nova /run/vol/nova_compute/_data
while umount -l /var/lib/nova 2>/dev/null; do :; done
for f in passwd group; do
	grep -v -e ^nova: -e ^libvirt-qemu: -e ^kvm: /etc/$f > /run/vol/$f
	mount --bind /run/vol/$f /etc/$f
done
echo ready
exec sleep infinity`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script) //nolint:noctx // it ends with the lab
	cmd.Dir = ground.ScratchDir
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("lab: a host beside the container: %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("lab: a host beside the container: %v: %s", err, said.String())
	}
	return []string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", cmd.Process.Pid), "--"}
}
