package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// Boot is what a guest said from one boot to the next.
type Boot struct {
	Number   int               // counts from 1 over the guest's life; 0 when its first lines were missed
	Payload  string            // "new" when it was written at this boot, "ok" or "BAD" when it was compared
	SHA256   string            // of the payload
	Disks    map[string]string // the same verdict for each further writable disk, by its name in the guest (vdb)
	Writer   string            // "ok" or "BAD" when the writer had left something to compare, else ""
	LastBeat int               // the last beat found on disk at this boot
	Gaps     int               // how many of the beats before it were not on disk
	Ready    bool
	Beats    []int    // said since, each after its fsync; they go on counting over boots
	Lines    []string // everything, without "LAB "
}

// ParseConsole reads a guest's console: its lines for the lab, among others of
// the kernel. It never fails: what it does not know it skips.
func ParseConsole(r io.Reader) []Boot {
	var boots []Boot
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return boots // what has no end yet is no line
		}
		boots = parseLine(boots, line)
	}
}

// Mark is a point in what a guest says: so many lines for the lab came before it.
type Mark int

// markOf is the point after all that was said.
func markOf(boots []Boot) Mark {
	lines := 0
	for _, boot := range boots {
		lines += len(boot.Lines)
	}
	return Mark(lines)
}

// lineAfter returns the first line after a mark that begins so.
func lineAfter(boots []Boot, mark Mark, prefix string) (string, bool) {
	for _, boot := range boots {
		for _, line := range boot.Lines {
			if mark <= 0 && strings.HasPrefix(line, prefix) {
				return line, true
			}
			mark--
		}
	}
	return "", false
}

// parseLine adds one line to what the guest said before.
func parseLine(boots []Boot, line string) []Boot {
	text, ok := strings.CutPrefix(strings.TrimSpace(line), "LAB ")
	if !ok {
		return boots
	}
	fields := map[string]string{}
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		fields[key] = value
	}
	number := func(key string) (int, bool) {
		n, err := strconv.Atoi(fields[key])
		return n, err == nil
	}

	n, isBoot := number("boot")
	if isBoot || len(boots) == 0 {
		boots = append(boots, Boot{Number: n, Disks: map[string]string{}})
	}
	boot := &boots[len(boots)-1]
	boot.Lines = append(boot.Lines, text)
	switch {
	case isBoot:
		boot.Payload, boot.SHA256 = fields["payload"], fields["sha256"]
	case fields["disk"] != "":
		boot.Disks[fields["disk"]] = fields["payload"]
	case fields["writer"] != "":
		boot.Writer = fields["writer"]
	case text == "ready":
		boot.Ready = true
	}
	if last, ok := number("lastbeat"); ok {
		boot.LastBeat = last
		boot.Gaps, _ = number("gaps")
	}
	if beat, ok := number("beat"); ok {
		boot.Beats = append(boot.Beats, beat)
	}
	return boots
}

// console keeps what a guest says. It listens at a channel of the lab's own and
// not at the console log, so that nothing but QEMU and virtlogd ever holds that.
type console struct {
	socket string

	mu         sync.Mutex
	boots      []Boot
	connection net.Conn
	closed     bool
	changed    chan struct{} // closed and replaced with every line
}

func newConsole(socket string) *console {
	c := &console{socket: socket, changed: make(chan struct{})}
	go c.listen()
	return c
}

// listen follows the guest through its boots: each QEMU makes the socket anew.
func (c *console) listen() {
	var dialer net.Dialer
	for {
		connection, err := dialer.DialContext(context.Background(), "unix", c.socket)
		c.mu.Lock()
		if c.closed {
			if err == nil {
				connection.Close()
			}
			c.mu.Unlock()
			return
		}
		c.connection = connection
		c.mu.Unlock()
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		lines := bufio.NewReader(connection)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			c.mu.Lock()
			c.boots = parseLine(c.boots, line)
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
		}
		connection.Close()
	}
}

func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.connection != nil {
		c.connection.Close()
	}
}

// snapshot returns a copy of what was said, and a channel that closes when more is.
func (c *console) snapshot() ([]Boot, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	boots := slices.Clone(c.boots)
	for i := range boots {
		boots[i].Disks = maps.Clone(boots[i].Disks)
		boots[i].Beats = slices.Clone(boots[i].Beats)
		boots[i].Lines = slices.Clone(boots[i].Lines)
	}
	return boots, c.changed
}

// send gives the guest one line.
func (c *console) send(line string) error {
	return patience.Retry(func() error {
		c.mu.Lock()
		connection := c.connection
		c.mu.Unlock()
		if connection == nil {
			return fmt.Errorf("lab: nobody is at %s", c.socket)
		}
		_, err := io.WriteString(connection, line+"\n")
		return err
	})
}

// wait returns the first of the states of the console that ok accepts.
func (c *console) wait(ok func([]Boot) bool) ([]Boot, bool) {
	deadline := time.After(patience.Limit())
	for {
		boots, changed := c.snapshot()
		if ok(boots) {
			return boots, true
		}
		select {
		case <-changed:
		case <-deadline:
			return boots, false
		}
	}
}

func (c *console) tail(lines int) string {
	boots, _ := c.snapshot()
	var all []string
	for _, boot := range boots {
		all = append(all, boot.Lines...)
	}
	return strings.Join(all[max(0, len(all)-lines):], "\n") + "\n"
}
