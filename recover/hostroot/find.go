package hostroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/os-rescue/os-rescue/recover/procfs"
)

// candidate is a process whose "/" may be the one.
type candidate struct {
	process *procfs.Process
	root    procfs.Root
	other   bool // its instances directory is not this process's own
}

func (c candidate) close() {
	c.process.Close()
	c.root.Close()
}

// daemons are the command names of what starts QEMUs.
func daemons() []string { return []string{"libvirtd", "virtqemud"} }

// find returns the process whose tree counts. note says why there is none although there are
// processes, or that libvirt does not run; found is false for this process's own tree.
func (r *Root) find(ctx context.Context) (c candidate, note string, found bool, err error) {
	for _, level := range []struct {
		what string
		pids func(context.Context) ([]int, error)
	}{
		{"", r.behindSocket},
		{"", r.byPIDFile},
		{"", r.byName},
		{"libvirt does not run, so that of its QEMUs counts", r.qemus},
	} {
		pids, err := level.pids(ctx)
		if err != nil {
			return candidate{}, "", false, err
		}
		all, err := r.open(pids)
		if err != nil || len(all) > 0 {
			c, note, found = r.choose(all)
			if note == "" && found && c.other {
				note = level.what
			}
			return c, note, found, err
		}
	}
	return candidate{}, "neither libvirt nor a QEMU runs", false, nil
}

// choose takes one of several processes, if all have the same tree, and closes the others.
func (r *Root) choose(all []candidate) (c candidate, note string, found bool) {
	if len(all) == 0 {
		return candidate{}, "", false
	}
	c = all[0]
	for _, another := range all[1:] {
		same, err := r.sameTree(c.root, another.root)
		if err != nil || !same {
			note = fmt.Sprintf("processes %d and %d (%s) see different directories at %s: set root",
				c.process.Identity.PID, another.process.Identity.PID, another.process.Command, r.options.InstancesPath)
		}
		another.close()
	}
	if note != "" {
		c.close()
		return candidate{}, note, false
	}
	return c, "", true
}

// open opens those of the processes that are what they should be; the others have ended.
func (r *Root) open(pids []int) ([]candidate, error) {
	var all []candidate
	for _, pid := range pids {
		p, err := procfs.Open(r.options.Proc, pid)
		if err != nil {
			continue
		}
		root, err := procfs.OpenRoot(p.Root())
		if err != nil {
			ended := p.Alive() != nil
			p.Close()
			if ended {
				continue
			}
			return all, fmt.Errorf("the root of process %d: %w", pid, err)
		}
		c := candidate{process: p, root: root}
		same, err := r.sameTree(r.own, root)
		if err != nil {
			c.close()
			return all, fmt.Errorf("%s in the root of process %d: %w", r.options.InstancesPath, pid, err)
		}
		c.other = !same
		all = append(all, c)
	}
	return all, nil
}

// sameTree is true when two roots have the same instances directory, and the same cache of
// images in it.
func (r *Root) sameTree(a, b procfs.Root) (bool, error) {
	for _, dir := range []string{"", "_base"} {
		same, err := a.SamePlace(b, filepath.Join(r.options.InstancesPath, dir, "x"))
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// isDaemon is true for a process that starts QEMUs: behind a socket there may be systemd or
// virtproxyd, a pid file may be stale, and a name is anybody's. libvirtd of qemu:///system is
// root's.
func (r *Root) isDaemon(pid int) bool {
	p, err := procfs.Open(r.options.Proc, pid)
	if err != nil {
		return false
	}
	defer p.Close()
	return slices.Contains(daemons(), p.Command) && p.IsRoot()
}

func (r *Root) behindSocket(ctx context.Context) ([]int, error) {
	if r.options.Daemon == nil {
		return nil, nil
	}
	if pid := r.options.Daemon(ctx); pid > 0 && r.isDaemon(pid) {
		return []int{pid}, nil
	}
	return nil, nil
}

// byPIDFile reads the pid files that libvirt's daemons write however they were started
// (src/remote/remote_daemon.c; RUNSTATEDIR is /run).
func (r *Root) byPIDFile(context.Context) ([]int, error) {
	var pids []int
	for _, name := range daemons() {
		if pid := readPID(r.own, filepath.Join("/run", name+".pid")); pid > 0 && r.isDaemon(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func (r *Root) byName(context.Context) ([]int, error) {
	var pids []int
	for _, name := range daemons() {
		named, err := procfs.Named(r.options.Proc, name)
		if err != nil {
			return nil, err
		}
		for _, pid := range named {
			if r.isDaemon(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// maxQEMUs bounds how many pid files are read.
const maxQEMUs = 10_000

// qemus are the QEMUs that libvirt started: it gives each "-uuid" on its command line.
func (r *Root) qemus(context.Context) ([]int, error) {
	names, err := r.own.Names(r.options.RunDir, maxQEMUs)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if !strings.HasSuffix(name, ".pid") {
			continue
		}
		pid := readPID(r.own, filepath.Join(r.options.RunDir, name))
		p, err := procfs.Open(r.options.Proc, pid)
		if err != nil {
			continue
		}
		isQEMU := p.UUID() != "" && p.HasOwnUsers() // QEMU's user may write the directory (libvirt 11)
		p.Close()
		if isQEMU {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// readPID returns the number in a pid file; 0 when there is none.
func readPID(root procfs.Root, path string) int {
	f, err := root.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	text := make([]byte, 32)
	n, _ := f.Read(text)
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text[:n])))
	if err != nil {
		return 0
	}
	return pid
}
