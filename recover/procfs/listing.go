package procfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

// listing is a look at a process's descriptors.
type listing struct {
	p       *Process
	isMeant func(link string) bool
	at      atomic.Pointer[string] // the link that is looked at
}

func (l *listing) name() string {
	at := "its descriptors"
	if link := l.at.Load(); link != nil {
		at = *link
	}
	return fmt.Sprintf("process %d (%s), %s", l.p.Identity.PID, l.p.Command, at)
}

// read returns the open regular files; it may hang.
func (l *listing) read(ctx context.Context) ([]Descriptor, error) {
	p, dir := l.p, l.p.path("fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("descriptors of process %d: %w", p.Identity.PID, err)
	}
	var list []Descriptor
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		d := Descriptor{FD: fd}
		path := filepath.Join(dir, e.Name())
		// The process may have closed this descriptor: then it does not count.
		if d.Link, err = os.Readlink(path); err != nil || isNoFile(d.Link) || l.isMeant != nil && !l.isMeant(d.Link) {
			continue
		}
		l.at.Store(&d.Link)
		if d.stat(path) != nil || d.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		info, err := readProc(p.path("fdinfo", e.Name()))
		if err != nil {
			continue
		}
		if d.Flags, err = identity.OpenFlags(info); err != nil {
			return nil, fmt.Errorf("descriptor %d of process %d: %w", fd, p.Identity.PID, err)
		}
		// Everybody who can reach a file can open it with O_PATH, and can't read it by that.
		if d.Flags&unix.O_PATH == 0 {
			list = append(list, d)
		}
	}
	return list, nil
}
