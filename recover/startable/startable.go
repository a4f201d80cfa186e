package startable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// WhyNot says why a start by that starter would fail; empty when nothing is known against
// it, also for a domain that the hypervisor does not know. Files are looked up in the settings' root, which
// is libvirt's. Nova's hard reboot makes a definition of its own, but on the same host, with
// the same emulator; it fetches the kernel and initrd in an instance's directory anew, and
// makes new UEFI variables (nova/virt/libvirt/driver.py, _hard_reboot).
// The errors are those of Hypervisor.
func WhyNot(ctx context.Context, hv recover.Hypervisor, s recover.Settings, uuid string, by recover.Starter) (string, error) {
	needs, err := hv.StartNeeds(ctx, uuid)
	if errors.Is(err, recover.ErrNoDomain) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	root, err := procfs.OpenRoot(s.Root)
	if err != nil {
		return "", fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer root.Close()
	var why []string
	for _, f := range needs.Files {
		fetched := by == recover.StarterNova && recover.IsBelow(f.Path, s.InstancesPath)
		if fetched || f.OnlyNova && by != recover.StarterNova {
			continue
		}
		if lack := lackOf(root, f); lack != "" {
			why = append(why, lack)
		}
	}
	return strings.Join(append(why, needs.Lacking...), "; "), nil
}

// lackOf says that a needed file is missing, or can't be run; empty when it can be used.
func lackOf(root procfs.Root, f recover.NeededFile) string {
	st, err := root.Stat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("%s (%s) is missing: install the package that has it, or put it back", f.What, f.Path)
	case err != nil:
		return ""
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Sprintf("%s (%s) is no file: put the right one there", f.What, f.Path)
	case f.Executable && st.Mode&0o111 == 0:
		return fmt.Sprintf("%s (%s) can't be run, it is not executable: chmod +x %s", f.What, f.Path, f.Path)
	default:
		return ""
	}
}
