package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/os-rescue/os-rescue/test/lab"
)

// The scanned host: guests whose files were deleted, among processes that have other
// files open.
const (
	scanGuests      = 8
	crowdProcesses  = 2000
	crowdFiles      = 10 // open in each of them
	quickProcesses  = 200
	quickScanGuests = 2
)

// scanFigures measures a whole `os-rescue scan`, including its start and libvirt's
// answers, beside tools that only find deleted files.
func scanFigures(o options) []figure {
	guests, processes := scanGuests, crowdProcesses
	if o.quick {
		guests, processes = quickScanGuests, quickProcesses
	}
	h := &host{}
	return []figure{{
		Name: fmt.Sprintf("scan: %d guests, %d processes with %d files", guests, processes, processes*crowdFiles),
		Goal: timesFaster(10),
		setup: func(ctx context.Context, b *bench) (func(), error) {
			return h.Close, h.make(ctx, b.dir, guests, processes)
		},
		ours: contender{"os-rescue scan", func(ctx context.Context, _ *bench) error {
			return h.find(ctx, h.binary, "scan", "--output", "json")
		}},
		peers: []contender{
			{"lsof +L1", func(ctx context.Context, _ *bench) error { return h.find(ctx, "lsof", "+L1", "-n", "-P") }},
			{"find -lname", func(ctx context.Context, _ *bench) error {
				return h.find(ctx, "sh", "-c", `find /proc/[0-9]*/fd -lname '*(deleted)' -printf '%p %l\n' 2> /dev/null; true`)
			}},
			{"ls -l | grep", func(ctx context.Context, _ *bench) error {
				return h.find(ctx, "sh", "-c", `ls -l /proc/[0-9]*/fd 2> /dev/null | grep '(deleted)'`)
			}},
		},
	}}
}

// host is a lab with guests whose files were deleted, and a crowd.
type host struct {
	scene
	disks []string // the deleted ones
}

// make starts the host. The guests do not run, because on a small machine they would
// compete with the measurement for CPU time. After an error nothing is left.
func (h *host) make(ctx context.Context, dir string, guests, processes int) error {
	h.scene, h.disks = scene{ctx: ctx}, nil
	err := h.try(func() {
		l := lab.New(h, lab.Options{})
		h.binary = l.Binary(h)
		for range guests {
			i := l.Define(h, lab.Spec{})
			l.Virsh(h, "start", "--paused", i.Name)
			h.disks = append(h.disks, i.Disk)
		}
		l.DeleteTree(h)
	})
	if err == nil {
		var end func()
		if end, err = startCrowd(ctx, dir, processes, crowdFiles); err == nil {
			h.Cleanup(end)
		}
	}
	if err != nil {
		h.Close()
	}
	return err
}

// find runs a command that must name every deleted disk.
func (h *host) find(ctx context.Context, name string, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	for _, disk := range h.disks {
		if !bytes.Contains(out, []byte(disk)) {
			return fmt.Errorf("%s does not find the deleted %s: %w\n%s", name, disk, err, stderr.Bytes())
		}
	}
	return err
}
