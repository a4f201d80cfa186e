package procfs

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// Mapped returns the files that the process of that PID has mapped into its memory and shares
// with it (MAP_SHARED), by device and number (/proc/PID/maps, proc(5)): while the process has
// one open, too, no other file has its number. proc is Dir. A file of btrfs is not found:
// there stat(2) tells another device.
func Mapped(proc string, pid int) (map[recover.Inode]bool, error) {
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "maps"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mapped := map[recover.Inode]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxList)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // address perms offset dev inode path
		if len(fields) < 6 || !strings.HasSuffix(fields[1], "s") {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[3], "%x:%x", &major, &minor); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		inode, err := strconv.ParseUint(fields[4], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		mapped[recover.Inode{Device: unix.Mkdev(major, minor), Inode: inode}] = true
	}
	return mapped, lines.Err()
}
