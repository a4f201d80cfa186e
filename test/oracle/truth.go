package oracle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

// truth is what the next start of a guest would give it, whatever os-rescue says.
type truth struct {
	running bool
	disks   []diskTruth
	// base is why the next start can't read the base of its overlays; empty when it can,
	// or when none of its disks has one. baseNameless is true when QEMU has it and no
	// path leads to it any more.
	base         string
	baseNameless bool
	// copied is true when a file that is only read is another than QEMU's, with its bytes.
	copied bool
	// small is what is amiss with files that no guest's data are in: disk.info, console.log.
	small string
	// held is true when some process has every byte, or the paths have: the guest can be
	// given everything. linked is true when at least some name in the tree leads to it.
	held, linked bool
	// detached is true when QEMU has a file open through a mount that is gone: its link
	// leads elsewhere.
	detached bool
	// alike is true when QEMU has several files that nothing can tell apart.
	alike bool
	// odd is true when a symlink or a device stands at the path of a disk or of its base: it may lead to it.
	odd bool
	// renamed is true for a guest that is off when its definition names a path at which
	// nothing is, and another file of the disk's is at its place: only the guest's owner
	// knows whether the one that is named was ever there.
	renamed bool
}

// diskTruth is the same of one disk.
type diskTruth struct {
	target   string
	now      string // the path that the running domain has
	nova     string // the path that Nova would define; empty when it has no such disk
	next     string // the path that the next start opens; empty when it has no such disk
	problem  string // why the next start does not give every byte; empty when it does
	there    bool   // a regular file stands at its path, and at that of each backing file
	opens    bool   // the next start can open it
	same     bool   // what the next start opens is what QEMU writes to now
	nameless bool   // what QEMU has open has no name any more
}

// intact is true when a destroy and a start give the guest every byte, those too that it
// writes until then.
func (t truth) intact() bool {
	for _, d := range t.disks {
		if d.problem != "" || t.running && !d.same {
			return false
		}
	}
	return true // the disks were read through their base
}

// starts is true when the next start can open every file.
func (t truth) starts() bool {
	for _, d := range t.disks {
		if !d.opens {
			return false
		}
	}
	return true
}

// taken is true when regular files stand wherever the next start looks for one: whether
// they are the guest's, nobody can know who has nothing to compare them with.
func (t truth) taken() bool {
	for _, d := range t.disks {
		if !d.there {
			return false
		}
	}
	return true
}

// redirected is true when the next start opens a disk by another path than QEMU has it
// open by now, or has no such disk.
func (t truth) redirected() bool {
	for _, d := range t.disks {
		if t.running && d.next != d.now {
			return true
		}
	}
	return false
}

// unknownToNova is true when Nova would define a disk with another path than QEMU has it by.
func (t truth) unknownToNova() bool {
	for _, d := range t.disks {
		if t.running && d.nova != d.now {
			return true
		}
	}
	return false
}

// nameless names what QEMU has open, what the next start needs, and what has no name.
func (t truth) nameless() string {
	for _, d := range t.disks {
		if d.nameless && !d.same {
			return d.target
		}
	}
	if t.baseNameless {
		return "the base"
	}
	return ""
}

func (t truth) String() string {
	var says []string
	add := func(ok bool, text string) {
		if ok {
			says = append(says, text)
		}
	}
	for _, d := range t.disks {
		add(d.problem != "", d.target+": "+d.problem)
		add(t.running && !d.same && d.problem == "", d.target+": the next start opens another file than QEMU has")
		add(t.running && d.nameless, d.target+": what QEMU has open has no name")
		add(t.running && d.nova != d.now, fmt.Sprintf("%s: QEMU has %s, Nova would define %q", d.target, d.now, d.nova))
		add(t.running && d.next != d.now, fmt.Sprintf("%s: QEMU has %s, the next start opens %q", d.target, d.now, d.next))
	}
	add(t.base != "", "base: "+t.base)
	add(t.baseNameless, "base: what QEMU has open has no name")
	add(t.small != "", t.small)
	add(!t.running && !t.held, "no process has every byte")
	add(t.copied, "a copy stands where a file belongs that is only read")
	add(t.detached, "QEMU has a file through a mount that is gone or hidden")
	add(t.alike, "several deleted files are alike")
	if len(says) == 0 {
		says = []string{"all is as it should be"}
	}
	state := "off"
	if t.running {
		state = "running"
	}
	return state + "; " + short(strings.Join(says, "; "))
}

// look finds the truth about a guest.
func look(ctx context.Context, w *world, g *guest) (truth, error) {
	t := truth{running: g.pid != 0}
	open := map[identity]openFile{}
	if t.running {
		files, err := openFiles(g.pid)
		if err != nil {
			return t, err
		}
		for _, f := range files {
			if o := open[f.identity]; !o.writable {
				open[f.identity] = f
			}
		}
		t.alike = alike(files, g)
	}
	next, err := bare.Disks(g.domain, libvirt.DOMAIN_XML_INACTIVE)
	if err != nil {
		return t, err
	}
	overlay := false
	for _, d := range g.disks {
		dt := diskTruth{target: d.target, now: d.path, nova: d.nova, problem: "the next start has no such disk", opens: true, there: true}
		for _, defined := range next {
			if defined.Target.Dev != d.target {
				continue
			}
			dt.next, dt.problem = bare.Source(defined), ""
			got, err := contentAt(ctx, dt.next, defined.Driver.Type)
			dt.opens = err == nil
			dt.there = dt.opens || stands(ctx, dt.next, defined.Driver.Type, d.base)
			switch {
			case err != nil:
				dt.problem = err.Error()
			case got.diff(d.content) != "":
				dt.problem = dt.next + ": " + got.diff(d.content)
			}
		}
		t.odd = t.odd || isOdd(dt.next) || d.base != "" && isOdd(d.base)
		t.renamed = t.renamed || !t.running && dt.next != "" && dt.next != d.nova && !exists(dt.next) && exists(d.nova)
		if id, _, err := bare.Identify(dt.next); err == nil {
			_, has := open[id]
			dt.same = d.readonly && dt.problem == "" || open[id].writable
			t.copied = t.copied || d.readonly && dt.same && !has
		}
		if len(d.tops) > 0 {
			o, has := open[d.tops[0]]
			dt.nameless = has && o.nlink == 0
			if there, _, err := bare.Identify(o.link); has && o.nlink > 0 && (err != nil || there != d.tops[0]) {
				t.detached = t.detached || !names(lab.NovaDir)[d.tops[0]]
			}
		}
		overlay = overlay || d.base != ""
		t.disks = append(t.disks, dt)
	}
	if overlay {
		lookAtBase(w, &t, open)
	}
	t.small = small(w, g)
	t.held, t.linked = available(w, g, t)
	for n, d := range g.disks { // the same where a process has it, wherever its name is
		next := t.disks[n].next
		t.renamed = t.renamed || !t.running && t.held && next != "" && next != d.nova && !exists(next)
	}
	return t, nil
}

// lookAtBase finds out about the base that all overlays share.
func lookAtBase(w *world, t *truth, open map[identity]openFile) {
	id, _, err := bare.Identify(basePath())
	body, readErr := os.ReadFile(basePath())
	switch {
	case errors.Join(err, readErr) != nil:
		t.base = errors.Join(err, readErr).Error()
	case !bytes.Equal(body, w.base):
		t.base = "another content"
	default:
		w.bases[id] = true
	}
	if t.base == "" {
		_, has := open[id]
		t.copied = t.copied || !has && (t.running || isCopyOfBase(w, id))
		return
	}
	for id, f := range open {
		if w.bases[id] && f.nlink == 0 {
			t.baseNameless = true
		}
	}
}

// isCopyOfBase is true when the file at the base's path is another than the one with its bytes
// that some guest's QEMU has open, as in a tree that a copy of it hides.
func isCopyOfBase(w *world, id identity) bool {
	for _, g := range w.guests {
		open, err := openFiles(g.pid)
		for _, f := range open {
			if err == nil && f.identity != id && w.bases[f.identity] {
				return true
			}
		}
	}
	return false
}

// small says what is amiss with the files of a guest that hold no data of it.
func small(w *world, g *guest) string {
	if body, err := os.ReadFile(filepath.Join(g.dir, "disk.info")); err != nil || !json.Valid(body) {
		return "no disk.info"
	}
	id, _, err := bare.Identify(filepath.Join(g.dir, "console.log"))
	if err != nil {
		return "no console.log" // libvirt makes a new one at a start; an old one may be held
	}
	if g.pid == 0 {
		return ""
	}
	files, err := openFiles(w.lab.VirtlogdPID())
	if err != nil {
		return err.Error()
	}
	for _, f := range files {
		if f.identity == id {
			return ""
		}
	}
	return "another console.log than virtlogd's"
}

// available says whether every byte of a guest is held by a process or at its path, and
// whether it is at least somewhere in the tree.
func available(w *world, g *guest, t truth) (held, linked bool) {
	if t.running || t.intact() {
		return true, true
	}
	by, named := bare.Held(), names(lab.NovaDir)
	held, linked = true, true
	needsBase := false
	for n, d := range g.disks {
		if t.disks[n].problem == "" {
			continue
		}
		for _, id := range d.tops {
			at, _, err := bare.Identify(w.places[id])
			held = held && (by[id] || err == nil && at == id)
			linked = linked && (by[id] || named[id])
		}
		needsBase = needsBase || d.base != ""
	}
	if needsBase && t.base != "" {
		heldBase, linkedBase := false, false
		for id := range w.bases {
			heldBase = heldBase || by[id]
			linkedBase = linkedBase || by[id] || named[id]
		}
		held, linked = held && heldBase, linked && linkedBase
	}
	return held, linked
}

// names returns the identities of all files below a directory.
func names(dir string) map[identity]bool {
	found := map[identity]bool{}
	_ = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if id, _, err := bare.Identify(path); err == nil {
				found[id] = true
			}
		}
		return nil // what can't be read has no names for us
	})
	return found
}

func isOdd(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && (st.Mode&unix.S_IFMT == unix.S_IFLNK || st.Mode&unix.S_IFMT == unix.S_IFBLK)
}

// alike is true when QEMU has several files that nothing tells apart: their links name none
// of the guest's files, and they are raw ones that are only read, or writable ones of one
// format and one size that have no name, or one by which they are none of the guest's.
func alike(files []openFile, g *guest) bool {
	known, bases := map[string]bool{}, map[string]bool{}
	for _, path := range g.paths() {
		known[path], known[path+" (deleted)"] = true, true
		bases[filepath.Base(path)] = true
	}
	raw, read := 0, 0
	for _, f := range files {
		var st unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", f.pid, f.fd), &st)
		switch {
		case err != nil, known[f.link]:
		case !f.writable:
			read++
		case (f.nlink == 0 || !bases[filepath.Base(f.link)]) && st.Size == diskSize:
			raw++
		}
	}
	return raw > 1 || read > 1
}

// chainOf returns the paths of an image and of its backing files, as far as qemu-img can
// follow them.
func chainOf(ctx context.Context, path, format string) []string {
	out, err := exec.CommandContext(ctx, "qemu-img", "info", "-U", "-f", format, "--backing-chain", "--output", "json", path).Output()
	var images []struct {
		Filename string `json:"filename"`
	}
	if err != nil || json.Unmarshal(out, &images) != nil || len(images) == 0 {
		return []string{path}
	}
	var paths []string
	for _, i := range images {
		paths = append(paths, i.Filename)
	}
	return paths
}

// stands is true when regular files that are not empty are at the paths of an image and of its backing files.
func stands(ctx context.Context, path, format, base string) bool {
	paths := chainOf(ctx, path, format)
	if base != "" {
		paths = append(paths, base)
	}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
			return false
		}
	}
	return true
}

// contentAt reads an image as a QEMU that is started now would.
func contentAt(ctx context.Context, path, format string) (content, error) {
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case err != nil:
		return content{}, fmt.Errorf("%s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return content{}, fmt.Errorf("%s is no regular file", path)
	case format == "raw" && st.Size != diskSize:
		return content{}, fmt.Errorf("%s has %d bytes", path, st.Size)
	}
	raw := path
	if format != "raw" {
		raw = filepath.Join(bare.SocketDir, "image")
		if err := bare.QemuImg(ctx, "convert", "-U", "-f", format, "-O", "raw", path, raw); err != nil {
			return content{}, err
		}
	}
	body, err := os.ReadFile(raw)
	if err != nil {
		return content{}, err
	}
	return contentOf(body)
}
