package procfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

// listing is a look at a process's descriptors.
type listing struct {
	p       *Process
	isMeant func(link string) bool // the others are not looked at; nil: all are
	asks    func(link string) bool // of the others it is enough what this host knows; nil: of all
	waiting bool                   // so many threads wait for file systems already that no other may hang

	at   atomic.Pointer[string] // the link that is looked at
	seen atomic.Int64           // how many were
}

// list returns the process's open regular files, without those that it closes meanwhile. The error
// wraps ErrSilent for one whose file system does not answer within the limit.
func (l *listing) list(ctx context.Context, limit time.Duration) ([]Descriptor, error) {
	if l.asks != nil {
		var err error
		if l.waiting, err = manyWait(); err != nil {
			return nil, err
		}
	}
	list, err := answered(ctx, limit, l, l.read)
	if err != nil {
		return nil, err
	}
	return list, l.p.Alive()
}

func (l *listing) progress() int64 { return l.seen.Load() }

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
		l.seen.Add(1)
		// The process may have closed this descriptor: then it does not count.
		if d.Link, err = os.Readlink(path); err != nil || isNoFile(d.Link) || l.isMeant != nil && !l.isMeant(d.Link) {
			continue
		}
		l.at.Store(&d.Link)
		if err := l.stat(&d, path); errors.Is(err, ErrSilent) {
			return nil, err
		} else if err != nil || d.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
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

// stat asks for the status of the open file, at its server only where that is wanted.
func (l *listing) stat(d *Descriptor, path string) (err error) {
	asks := l.asks != nil && l.asks(d.Link)
	if asks && !l.waiting {
		return d.stat(path)
	}
	d.Stat, err = identity.Cached(path)
	if err != nil || !asks {
		return err
	}
	if d.Stat.IsAnonymous() {
		return fmt.Errorf("%s: %w, or may not: too many have not answered", l.name(), ErrSilent)
	}
	return d.stat(path)
}
