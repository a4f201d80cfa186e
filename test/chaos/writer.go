package chaos

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/test/lab"
)

// writer writes to a guest's disks, one after the other, whenever it runs, until it is
// told to end.
type writer struct {
	guest *guest
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	monitor *monitor // of the QEMU that runs now; nil while there is none
	lost    []loss   // on the disk of a QEMU when it was new
	pid     int      // of the last QEMU
}

// loss is something that is missing.
type loss struct {
	disk   *disk
	text   string
	excuse string // why nothing could keep it; empty when something could
}

func startWriter(g *guest) *writer {
	w := &writer{guest: g, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			if m, err := dial(g.socket); err == nil {
				w.write(m)
				m.connection.Close()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return w
}

// end ends the writer, once or more often. Nothing is written afterwards.
func (w *writer) end() {
	w.once.Do(func() { close(w.stop) })
	w.mu.Lock()
	if w.monitor != nil {
		_ = w.monitor.connection.SetDeadline(time.Now().Add(5 * time.Second))
	}
	w.mu.Unlock()
	<-w.done
}

// losses returns what was missing on the disk of a QEMU when it was new.
func (w *writer) losses() []loss {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// write writes to one QEMU until it ends. A QEMU other than the last one is first looked
// at: what it has must be all that was acknowledged.
func (w *writer) write(m *monitor) {
	w.mu.Lock()
	w.monitor = m
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.monitor = nil
		w.mu.Unlock()
	}()
	if w.pid != 0 && w.pid != m.pid {
		w.look(m.pid)
	}
	w.pid = m.pid
	for {
		for _, d := range w.guest.disks {
			select {
			case <-w.stop:
				return
			default:
			}
			if m.stopped {
				var status struct{}
				if m.do("query-status", nil, &status) != nil { // it hears of a RESUME
					return
				}
				time.Sleep(5 * time.Millisecond)
				continue
			}
			if w.one(m, d) != nil {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// one writes the next block of one disk, as a guest does: the request is there, and some
// time later QEMU has done it. An error is the connection's. HMP's qemu-io says nothing of
// errors: what counts is what QEMU counts. (Its aio_flush drains every disk of the QEMU,
// which no guest can.)
func (w *writer) one(m *monitor, d *disk) error {
	device := fmt.Sprintf("/machine/peripheral/virtio-disk%d/virtio-backend", strings.Index("abc", d.Target[2:]))
	done, failed, err := m.written(device)
	if err != nil || m.stopped {
		return err
	}
	number, block, pattern := d.ledger.attempt()
	if err := m.qemuIO(device, fmt.Sprintf("aio_write -q -f -P %d %d %d", pattern, block*blockSize, blockSize)); err != nil {
		return err
	}
	for {
		nowDone, nowFailed, err := m.written(device)
		switch {
		case err != nil:
			return err
		case nowDone > done && !m.stopped:
			d.ledger.acknowledge(number, block, pattern)
			return nil
		case nowDone > done || nowFailed > failed:
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// look compares what a new QEMU has open with what was acknowledged. What is missing is
// told, and then counts as never written, or every later look would tell it again.
func (w *writer) look(pid int) {
	for _, d := range w.guest.disks {
		link := openedAt(pid, d.Path)
		if link == "" {
			continue // at the end all is looked at again
		}
		data, err := readImage(link, d.Format)
		if err != nil {
			continue
		}
		if text := d.ledger.missing(data); text != "" {
			w.mu.Lock()
			w.lost = append(w.lost, loss{d, "a QEMU was started without it: " + text, d.excuse()})
			w.mu.Unlock()
		}
		d.ledger.adopt(data)
	}
}

// openedAt returns the link in /proc of what a QEMU has open at a path.
func openedAt(pid int, path string) string {
	files, err := lab.OpenFiles(pid)
	if err != nil {
		return ""
	}
	for _, f := range files {
		if strings.TrimSuffix(f.Path, " (deleted)") == path {
			return fmt.Sprintf("/proc/%d/fd/%d", pid, f.FD)
		}
	}
	return ""
}
