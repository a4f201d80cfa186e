package recover

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// FileMode is a file's permission bits. Its JSON is octal: "0644".
type FileMode fs.FileMode

// MarshalText returns the bits in octal.
func (m FileMode) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(m)), nil }

// UnmarshalText reads octal bits, and refuses bits other than permissions.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err == nil && n > 0o777 {
		err = fmt.Errorf("%q has bits other than permissions", text)
	}
	*m = FileMode(n)
	return err
}

// ValidUUID is true for 8-4-4-4-12 lower-case hexadecimal digits. It is strict because
// a UUID becomes part of paths.
func ValidUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for n, c := range s {
		if n == 8 || n == 13 || n == 18 || n == 23 {
			if c != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdef", c) {
			return false
		}
	}
	return true
}

// IsBelow is true when path lies below dir.
func IsBelow(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// StagePrefix begins the name of a directory in which a run stages its copies, on the
// file system on which they will be published. Only root can enter it.
const StagePrefix = ".os-rescue-"

// AsideName is the name that a file called name gets in a run which moves it out of the way.
func AsideName(name, run string) string { return name + ".replaced-" + run }

// BeforeName is the name in which a live rescue keeps the disk called name as it was before, where
// the new one is not proven.
func BeforeName(name, run string) string { return name + ".before-" + run }

// IsKept is true for a path of a file that a run has moved out of the way, or kept as it was.
func IsKept(path string) bool {
	name := filepath.Base(path)
	return strings.Contains(name, AsideName("", "")) || strings.Contains(name, BeforeName("", ""))
}

// DiskInfoName is the file in which Nova keeps the format of each disk
// (nova/virt/libvirt/imagebackend.py, Image.disk_info_path).
const DiskInfoName = "disk.info"
