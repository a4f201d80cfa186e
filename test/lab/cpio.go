package lab

import (
	"fmt"
	"io"
)

// cpioWriter writes an initramfs: the "newc" format of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst, everything owned
// by root and dated 0, so that the same input gives the same bytes.
type cpioWriter struct {
	w     io.Writer
	inode int
	err   error
}

// The file types of a mode, as in struct stat.
const (
	cpioFile    = 0o100000
	cpioDir     = 0o040000
	cpioSymlink = 0o120000
	cpioChar    = 0o020000
)

func (c *cpioWriter) dir(path string)            { c.entry(path, cpioDir|0o755, nil, 0, 0) }
func (c *cpioWriter) file(path string, b []byte) { c.entry(path, cpioFile|0o755, b, 0, 0) }
func (c *cpioWriter) symlink(path, target string) {
	c.entry(path, cpioSymlink|0o777, []byte(target), 0, 0)
}

// char adds a character device.
func (c *cpioWriter) char(path string, major, minor int) {
	c.entry(path, cpioChar|0o600, nil, major, minor)
}

func (c *cpioWriter) entry(path string, mode int, body []byte, major, minor int) {
	c.inode++
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, 0, 0, 1, 0, len(body), 0, 0, major, minor, len(path)+1, 0)
	c.write([]byte(header + path + "\x00"))
	c.pad(len(header) + len(path) + 1)
	c.write(body)
	c.pad(len(body))
}

// close ends the archive and returns the first error of all the writes.
func (c *cpioWriter) close() error {
	c.inode = -1
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.err
}

func (c *cpioWriter) pad(n int) {
	c.write(make([]byte, (4-n%4)%4))
}

func (c *cpioWriter) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
	}
}
