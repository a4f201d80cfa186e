package identity

import (
	"fmt"
	"os"
	"strconv"
)

// Mount returns the number of the mount through which a descriptor was opened; O_PATH is
// enough. Names are moved within one mount only: between two of one file system rename(2)
// says EXDEV, and mv copies. Linux before 5.8 tells it in fdinfo alone (proc_pid_fdinfo(5)).
func Mount(fd int) (int, error) {
	path := fmt.Sprintf("/proc/self/fdinfo/%d", fd)
	body, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	number, ok := fdinfoField(body, "mnt_id:")
	if !ok {
		return 0, fmt.Errorf("%s names no mount", path)
	}
	return strconv.Atoi(number)
}
