package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// ErrFull: the names of the stored descriptors would be too long for the environment of
// the next process. Nothing was stored.
var ErrFull = errors.New("systemd's store of descriptors has no room for one more name")

const (
	maxName = 255 // FDNAME_MAX in systemd's src/basic/fileio.h, src/basic/fd-util.h
	// maxNames is the space for all names and the ':' between them. They come as one
	// string of the environment, LISTEN_FDNAMES, and the kernel starts no process with
	// a string of more than 32 pages (execve(2), "Limits on size of arguments and
	// environment"): the service could never start again.
	maxNames = 32*4096 - len("LISTEN_FDNAMES=\x00")
)

// StoreFD gives systemd a descriptor to keep for the next process of this service.
// The name has 1 to 255 printable ASCII characters without ':'. Several descriptors
// may share a name; RemoveFD removes all of them. Short names leave space for more:
// 13,000 of nine characters, ErrFull after that. nil means that the descriptor was
// sent: systemd doesn't answer (see Barrier), and drops descriptors beyond
// FileDescriptorStoreMax=. The same open file stored twice is kept once. To find that
// out, systemd compares it with everything in the store (service_add_fd_store in its
// src/core/service.c), so 1,000 descriptors take half a second, and 4,000 eight.
func (n *Notifier) StoreFD(name string, f *os.File) error {
	if !validName(name) {
		return fmt.Errorf("store %s: %q can't be a descriptor's name: %w", f.Name(), name, os.ErrInvalid)
	}
	if !n.Enabled() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.used+len(name)+1 > maxNames {
		return fmt.Errorf("store %s as %s: %w", f.Name(), name, ErrFull)
	}
	// FDPOLL=0: keep it regardless of poll(2). systemd before 246 does not know that,
	// and can't poll a regular file anyway (sd_notify(3)).
	if err := n.sendWith(f, "FDSTORE=1", "FDNAME="+name, "FDPOLL=0"); err != nil {
		return err
	}
	n.count(name, 1)
	return nil
}

// RemoveFD makes systemd close every descriptor of that name. It is no error if there
// is none.
func (n *Notifier) RemoveFD(name string) error {
	if !validName(name) {
		return fmt.Errorf("%q can't be a descriptor's name: %w", name, os.ErrInvalid)
	}
	if !n.Enabled() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.send("FDSTOREREMOVE=1", "FDNAME="+name); err != nil {
		return err
	}
	n.count(name, -n.names[name])
	return nil
}

// Inherited returns the descriptors that systemd kept for this service, each under
// its name (File.Name); the caller closes them. They stay in the store. A second
// call returns none.
func (n *Notifier) Inherited() []*os.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	files := n.inherited
	n.inherited = nil
	return files
}

// Barrier returns when systemd has processed everything that was sent before. Only
// then do stored descriptors survive the end of this process. It waits until ctx ends.
func (n *Notifier) Barrier(ctx context.Context) error {
	if !n.Enabled() {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("wait for systemd: %w", err)
	}
	defer r.Close()
	// systemd closes the descriptor that comes with the message, which ends the pipe
	// (sd_notify_barrier(3)). Before 246 it closes the descriptors of every message
	// that it does not know.
	err = n.sendWith(w, "BARRIER=1")
	w.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("wait for systemd: %w", errors.Join(context.Cause(ctx), err))
	}
	return nil
}

// count keeps account of the names in the store; n.mu is held.
func (n *Notifier) count(name string, by int) {
	n.used += by * (len(name) + len(":"))
	if n.names[name] += by; n.names[name] == 0 {
		delete(n.names, name)
	}
}

// validName: fdname_is_valid in systemd's src/basic/fd-util.c, without the empty one.
func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for _, c := range []byte(name) {
		if c < ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return true
}
