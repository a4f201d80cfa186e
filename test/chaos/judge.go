package chaos

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

// How a trial ends for a guest.
const (
	endWhole  = "whole"              // on the disk that it has next
	endKept   = "kept"               // in a place that os-rescue names
	endCaused = "taken by the fault" // nothing could keep it, and os-rescue does not claim that it did
)

// judge looks for every acknowledged block.
type judge struct{ *world }

// all returns the worst end of a guest.
func (w judge) all(ctx context.Context) (string, error) {
	worst := endWhole
	for _, g := range w.guests {
		end, err := w.guest(ctx, g)
		if err != nil {
			return "", err
		}
		if order := []string{endWhole, endKept, endCaused}; slices.Index(order, end) > slices.Index(order, worst) {
			worst = end
		}
	}
	return worst, nil
}

func (w judge) guest(ctx context.Context, g *guest) (string, error) {
	g.writer.end()
	forgiven := false
	for _, l := range g.writer.losses() {
		if f := w.missing(g, l); f != nil {
			return "", f
		}
		forgiven = true
	}
	pid := lab.QemuPID(g.name)
	for _, d := range g.disks {
		link := openedAt(pid, d.Path)
		if pid == 0 || link == "" {
			continue
		}
		data, err := readImage(link, d.Format)
		if err != nil {
			return "", fmt.Errorf("read what QEMU has: %w", err)
		}
		if text := d.ledger.missing(data); text != "" {
			if f := w.missing(g, loss{d, "the guest runs without it: " + text, d.excuse()}); f != nil {
				return "", f
			}
			forgiven = true
			d.ledger.adopt(data)
		}
	}
	if w.verdicts[g.uuid] == recover.VerdictIntact {
		return w.next(ctx, g, forgiven)
	}
	if pid != 0 {
		return "", &finding{"an instance stays unrescued although the faults are over", g.name + " is " + string(w.verdicts[g.uuid])}
	}
	for _, d := range g.disks {
		switch place, named := w.place(d); {
		case place == "" && d.excuse() == "":
			return "", &finding{"an acknowledged block is lost", g.name + " " + d.Target + ": it is off, and nothing that is left has every block"}
		case place == "":
			if f := w.missing(g, loss{d, "nothing that is left has every block", d.excuse()}); f != nil {
				return "", f
			}
			forgiven = true
		case !named:
			return "", &finding{"os-rescue does not name what has the blocks", g.name + " " + d.Target + ": " + place}
		default:
			w.note("%s %s: kept in %s", g.name, d.Target, place)
			if d.excuse() == "" {
				return "", &finding{"an instance stays unrescued although the faults are over", g.name + " is off, and kept in " + place}
			}
		}
	}
	if forgiven {
		return endCaused, nil
	}
	return endKept, nil
}

// next destroys and starts a guest that is said to be intact, and reads what it has then.
func (w judge) next(ctx context.Context, g *guest, forgiven bool) (string, error) {
	if pid := lab.QemuPID(g.name); pid != 0 {
		// A libvirtd that was killed right after a pivot does not know the guest when it comes back:
		// its status file has a mirror without a job, which it can't read (libvirt 9.0). scan and check
		// call such a QEMU foreign as soon as its files are deleted; here its files are in order.
		if _, err := w.virsh(ctx, "destroy", g.name); err != nil {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				return "", err
			}
		}
		for lab.QemuPID(g.name) == pid {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if text, err := w.virsh(ctx, "start", g.name); err != nil {
		return "", &finding{"intact, it says, and it does not start", g.name + ": " + text}
	}
	connection := w.connect()
	defer func() { _, _ = connection.Close() }()
	domain, err := connection.LookupDomainByName(g.name)
	if err != nil {
		return "", err
	}
	data, err := bare.ReadGuest(ctx, domain, diskSize)
	if err != nil {
		return "", fmt.Errorf("read the guest: %w", err)
	}
	for _, d := range g.disks {
		text := d.ledger.missing(data[d.Target])
		if text == "" && d.Format == "qcow2" {
			for n, b := range data[d.Target][blocks*blockSize:] {
				if b != basePattern {
					text = fmt.Sprintf("byte %d of the base is %#x", n, b)
					break
				}
			}
		}
		if text == "" {
			continue
		}
		if f := w.missing(g, loss{d, "after a destroy and a start: " + text, d.excuse()}); f != nil {
			return "", f
		}
		forgiven = true
	}
	if forgiven {
		return endCaused, nil
	}
	return endWhole, nil
}

// missing judges a loss: nil where nothing could prevent it, and os-rescue does not say that
// all is well.
func (w judge) missing(g *guest, l loss) *finding {
	text := g.name + " " + l.disk.Target + ": " + l.text
	if l.excuse == "" {
		return &finding{"an acknowledged block is lost", text}
	}
	for _, report := range w.reports {
		for _, i := range report.Instances {
			if i.UUID == g.uuid && (i.Outcome == recover.OutcomeRescued || i.Outcome == recover.OutcomeIntact) {
				says := fmt.Sprintf("%s (%s); run %s says %s", text, l.excuse, report.Run, i.Outcome)
				return &finding{"rescued, it says, of what a fault has taken", says}
			}
		}
	}
	w.note("%s: %s", text, l.excuse)
	return nil
}

// place finds what has every block of a disk, and whether os-rescue names it: a file on
// disk, or what its keeper or its guard holds.
func (w judge) place(d *disk) (where string, named bool) {
	said := w.said.String()
	for _, role := range []string{"keeper", "guard"} {
		for _, pid := range pids(w.world, role) {
			files, err := lab.OpenFiles(pid)
			if err != nil {
				continue
			}
			for _, f := range files {
				link := fmt.Sprintf("/proc/%d/fd/%d", pid, f.FD)
				if data, err := readImage(link, d.Format); err == nil && d.ledger.missing(data) == "" {
					return "the " + role + "'s " + f.Path, strings.Contains(said, d.Path)
				}
			}
		}
	}
	for _, dir := range []string{lab.NovaDir, bare.StateDir} {
		_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || where != "" && named {
				return nil //nolint:nilerr // it is gone by now
			}
			if data, err := readImage(path, d.Format); err == nil && d.ledger.missing(data) == "" {
				where, named = path, strings.Contains(said, path)
			}
			return nil
		})
	}
	return where, named
}
