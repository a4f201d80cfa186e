package scan

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
)

// places is the part of a file system tree that nextStart needs, as a procfs.Root has it.
type places interface {
	Stat(path string) (identity.Status, error)
	Resolve(path string) string
}

// nextStart compares the disks that an instance's guest has, by its live definition, with
// those that its next start would give it: by the persistent definition, and by what
// Nova would define. Below the top image of a disk only what the persistent definition
// itself names is compared: where it names nothing, libvirt asks the images' headers
// (virStorageSourceGetMetadata in libvirt's src/storage_file).
//
// An instance that is off has what its definition names; but a disk that is held for it and that its
// definition no longer names is one that its guest had, and one whose memory is saved goes on with the
// disks that it was saved with.
func nextStart(i recover.Instance, instancesPath string, at places) []recover.Divergence {
	c := comparison{domain: i.Definition, dir: filepath.Join(instancesPath, i.UUID), at: at}
	if i.Definition.Next != nil {
		c.byLibvirt(*i.Definition.Next, i.Files)
	} else if i.Process.PID == 0 {
		c.boot(i.Definition.Boot, i.Files)
	}
	if i.Process.PID != 0 || i.Definition.Next != nil {
		c.byNova()
	} else {
		c.bySelf(i.Files)
		c.drives(i.Files)
		c.bySaved(i.Files)
	}
	for n := range c.found {
		c.found[n].Apart = c.isApart(c.found[n], i.Files)
	}
	return c.found
}

// comparison is the work on one domain.
type comparison struct {
	domain recover.Domain
	dir    string // its own directory, where Nova puts what it makes for it
	at     places
	found  []recover.Divergence
}

// byLibvirt compares with the persistent definition.
func (c *comparison) byLibvirt(next recover.Definition, files []recover.File) {
	for _, disk := range c.domain.Disks {
		top := disk.Chain[0]
		if !isCompared(disk) {
			continue
		}
		if named := c.named(disk, next.Disks); named != nil {
			c.below(disk, *named)
			continue
		}
		n := withTarget(next.Disks, disk.Target)
		if top.Source != recover.SourceFile && (n < 0 || next.Disks[n].Chain[0].Source != recover.SourceFile) {
			continue // no deletion reaches either
		}
		d := recover.Divergence{Target: disk.Target, Open: nameOf(top), Writable: !disk.ReadOnly}
		same := func(other recover.Disk) bool { return c.same(other.Chain[0], top) }
		if twin := slices.IndexFunc(next.Disks, same); twin >= 0 {
			d.As = next.Disks[twin].Chain[0].Format
		} else if n >= 0 {
			d.Next = nameOf(next.Disks[n].Chain[0])
			d.Below = c.isBelow(next.Disks[n].Chain[0], disk)
			d.Gone = c.isGone(next.Disks[n], files)
		}
		c.add(recover.StarterLibvirt, d)
	}
	c.boot(next.Boot, files)
	for _, disk := range next.Disks {
		top := disk.Chain[0]
		if !c.isGone(disk, files) {
			continue
		}
		// Where it takes the place of an open one, that is said already.
		if !slices.ContainsFunc(c.found, func(d recover.Divergence) bool { return d.Next == top.Path }) {
			c.add(recover.StarterLibvirt, recover.Divergence{Target: disk.Target, Next: top.Path})
		}
	}
	if c.domain.NVRAM != "" && next.NVRAM != "" && !c.samePath(c.domain.NVRAM, next.NVRAM) {
		c.add(recover.StarterLibvirt, recover.Divergence{Target: "nvram", Open: c.domain.NVRAM, Next: next.NVRAM, Writable: true})
	}
}

// isGone is true for a disk of the persistent definition whose file does not exist, and
// without which the start would fail.
func (c *comparison) isGone(disk recover.Disk, files []recover.File) bool {
	top := disk.Chain[0]
	return top.Source == recover.SourceFile && !disk.Optional && !c.isOpen(top) && !c.isInPlace(top.Path, files)
}

// isApart is true when the file below, which the next start would open, is a deleted one that QEMU has open
// for writing, as it was when a snapshot was made after the deletion: it commits into that. One that it has
// open for reading it opens anew for a commit, by its path (raw_reconfigure_getfd in QEMU's block/file-posix.c),
// and gets what was put back there. Both measured with QEMU 7.2.
func (c *comparison) isApart(d recover.Divergence, files []recover.File) bool {
	return d.Below && !d.Saved && slices.ContainsFunc(files, func(f recover.File) bool {
		isWritten := slices.ContainsFunc(f.Holders, func(h recover.Holder) bool { return h.PID == c.domain.PID && h.Writable })
		return (f.State == recover.FileDeleted || f.State == recover.FileReplaced) && isWritten && c.samePath(f.Path, d.Next)
	})
}

// boot finds the files of a direct boot that a start through libvirt would miss. No process
// holds them; Nova fetches its own again (nova/virt/libvirt/driver.py, _create_image).
func (c *comparison) boot(files []recover.BootFile, held []recover.File) {
	for _, f := range files {
		if !c.isInPlace(f.Path, held) {
			c.add(recover.StarterLibvirt, recover.Divergence{Target: f.Kind, Next: f.Path})
		}
	}
}

// below compares what lies below the top of a disk with what the persistent definition puts
// there. libvirt takes what a definition says of a chain for the truth, whatever the images'
// headers say.
func (c *comparison) below(disk, next recover.Disk) {
	for n := 1; n < len(disk.Chain) || n < len(next.Chain); n++ {
		d := recover.Divergence{Target: disk.Target, Over: nameOf(disk.Chain[n-1])}
		switch {
		case n >= len(next.Chain):
			if next.ChainKnown && next.Chain[n-1].Format != "raw" { // it ends there, by <backingStore/>
				d.Open = nameOf(disk.Chain[n])
				c.add(recover.StarterLibvirt, d)
			}
			return
		case n >= len(disk.Chain):
			d.Next = nameOf(next.Chain[n])
			c.add(recover.StarterLibvirt, d)
			return
		}
		has, other := disk.Chain[n], next.Chain[n]
		d.Open, d.Next = nameOf(has), nameOf(other)
		switch {
		case !c.same(has, other):
		case has.Format != "" && other.Format != "" && has.Format != other.Format:
			d.As = other.Format
		default:
			continue
		}
		c.add(recover.StarterLibvirt, d)
		return
	}
}

// novaNames are the disks that Nova makes in an instance's directory
// (nova/virt/libvirt/blockinfo.py, get_disk_mapping, and driver.py,
// _create_and_inject_local_root and rescue).
var novaNames = regexp.MustCompile(`^disk(\.local|\.eph[0-9]+|\.swap|\.config|\.rescue|\.config\.rescue)?$`)

// novaNameOf returns which of the names of Nova's a file that was renamed or copied has borne
// ("disk.eph0.moved" is that of disk.eph0): "disk" where its name does not tell.
func novaNameOf(path string) string {
	name := filepath.Base(path)
	for at := len(name); at > 0; at = strings.LastIndex(name[:at], ".") {
		if novaNames.MatchString(name[:at]) {
			return name[:at]
		}
	}
	return "disk"
}

// byNova compares with what Nova would define. In the instance's own directory Nova opens
// what it has made there, under its own names, and nothing else. Of a file elsewhere only
// Nova's database tells whether it is a volume. Nova attaches its volumes to the running
// guest and to the persistent definition alike (driver.py, attach_volume), so what that
// one names is taken for a volume, unless one of Nova's own disks lies below it.
func (c *comparison) byNova() {
	if c.domain.Nova == nil {
		return
	}
	byLibvirt := slices.Clone(c.found)
	for _, disk := range c.domain.Disks {
		top := disk.Chain[0]
		if !isCompared(disk) || c.isNovas(top.Path) {
			continue
		}
		d := recover.Divergence{Target: disk.Target, Open: nameOf(top), Writable: !disk.ReadOnly}
		if n := slices.IndexFunc(disk.Chain[1:], func(m recover.Image) bool { return c.isNovas(m.Path) }); n >= 0 {
			d.Next, d.Below = disk.Chain[1+n].Path, true
			c.add(recover.StarterNova, d)
			continue
		}
		if c.isOwn(top.Path) {
			own := recover.Image{Source: recover.SourceFile, Path: filepath.Join(c.dir, novaNameOf(top.Path))}
			if !c.isOpen(own) {
				d.Next = own.Path
			}
			c.add(recover.StarterNova, d)
			continue
		}
		for _, d := range byLibvirt {
			if d.Target == disk.Target && d.Open == nameOf(top) {
				c.add(recover.StarterNova, d)
			}
		}
	}
}

// bySelf finds the disks that are held for a domain that is off and in whose place its
// definition names others. What Nova makes comes and goes with its own doings (a rescue
// mode, a resize), and is no snapshot.
func (c *comparison) bySelf(files []recover.File) {
	for _, f := range files {
		if f.Role != recover.RoleDisk || f.Target == "" || c.isNovas(f.Path) {
			continue
		}
		image := recover.Image{Source: recover.SourceFile, Path: f.Path}
		n := withTarget(c.domain.Disks, f.Target)
		if n < 0 || slices.ContainsFunc(c.domain.Disks, func(disk recover.Disk) bool { return c.same(disk.Chain[0], image) }) {
			continue
		}
		top := c.domain.Disks[n].Chain[0]
		c.add(recover.StarterLibvirt, recover.Divergence{Target: f.Target, Open: f.Path, Next: nameOf(top), Writable: true})
		if c.domain.Nova != nil {
			c.add(recover.StarterNova, recover.Divergence{Target: f.Target, Open: f.Path, Next: nameOf(top), Writable: true})
		}
	}
}

// bySaved compares the definition of a domain that is off with the one in its managed save
// image, which libvirt starts instead (qemuDomainObjStart in libvirt's src/qemu/qemu_driver.c), also for a
// resume through Nova; its other starts discard that image (nova/virt/libvirt/guest.py, delete_configuration).
func (c *comparison) bySaved(files []recover.File) {
	if c.domain.Saved == nil {
		return
	}
	for _, saved := range c.domain.Saved.Disks {
		top := saved.Chain[0]
		if !isCompared(saved) || top.Source != recover.SourceFile {
			continue
		}
		if slices.ContainsFunc(c.domain.Disks, func(disk recover.Disk) bool { return c.same(disk.Chain[0], top) }) {
			continue
		}
		d := recover.Divergence{Target: saved.Target, Next: top.Path, Writable: !saved.ReadOnly, Saved: true}
		if n := withTarget(c.domain.Disks, saved.Target); n >= 0 {
			d.Open = nameOf(c.domain.Disks[n].Chain[0])
			d.Below = c.isBelow(c.domain.Disks[n].Chain[0], saved)
		}
		d.Gone = !saved.Optional && !saved.Requisite && !c.isInPlace(top.Path, files)
		c.add(recover.StarterLibvirt, d)
		if c.domain.Nova != nil && d.Writable && !c.isNovas(top.Path) {
			c.add(recover.StarterNova, d)
		}
	}
}

// drives finds the media without which a domain that is off would not start.
func (c *comparison) drives(files []recover.File) {
	for _, disk := range c.domain.Disks {
		top := disk.Chain[0]
		if top.Source != recover.SourceFile || !disk.ReadOnly || disk.Optional || c.isInPlace(top.Path, files) {
			continue
		}
		c.add(recover.StarterLibvirt, recover.Divergence{Target: disk.Target, Next: top.Path})
		if c.domain.Nova != nil && c.isNovas(top.Path) {
			c.add(recover.StarterNova, recover.Divergence{Target: disk.Target, Next: top.Path})
		}
	}
}

// add notes a divergence. One that was found before gets a further starter.
func (c *comparison) add(by recover.Starter, d recover.Divergence) {
	for n := range c.found {
		f := &c.found[n]
		if f.Target == d.Target && f.Open == d.Open && f.Next == d.Next && f.As == d.As && f.Over == d.Over {
			if !slices.Contains(f.By, by) {
				f.By = append(slices.Clone(f.By), by)
			}
			return
		}
	}
	d.By = []recover.Starter{by}
	c.found = append(c.found, d)
}

// named returns the one among others that has a disk's file, by whatever target, in the
// format that QEMU has it in; nil if there is none.
func (c *comparison) named(disk recover.Disk, others []recover.Disk) *recover.Disk {
	top := disk.Chain[0]
	n := slices.IndexFunc(others, func(o recover.Disk) bool {
		other := o.Chain[0]
		return c.same(other, top) && (other.Format == top.Format || other.Format == "" || top.Format == "")
	})
	if n < 0 {
		return nil
	}
	return &others[n]
}

// isOpen is true when the guest has a file as a disk, or below one.
func (c *comparison) isOpen(image recover.Image) bool {
	return slices.ContainsFunc(c.domain.Disks, func(disk recover.Disk) bool {
		return c.same(disk.Chain[0], image) || c.isBelow(image, disk)
	})
}

// isBelow is true when an image is a backing file of a disk.
func (c *comparison) isBelow(image recover.Image, disk recover.Disk) bool {
	return slices.ContainsFunc(disk.Chain[1:], func(m recover.Image) bool { return c.same(m, image) })
}

// isInPlace is true when a file is at its path, or is one that will be put back there.
func (c *comparison) isInPlace(path string, files []recover.File) bool {
	if slices.ContainsFunc(files, func(f recover.File) bool { return c.samePath(f.Path, path) && len(f.Holders) > 0 }) {
		return true
	}
	_, err := c.at.Stat(path)
	return err == nil
}

// isNovas is true for a path at which Nova makes a disk of the instance.
func (c *comparison) isNovas(path string) bool {
	return c.isOwn(path) && novaNames.MatchString(filepath.Base(path))
}

// isOwn is true for a path in the instance's own directory.
func (c *comparison) isOwn(path string) bool {
	here := filepath.Join(c.dir, "disk")
	return path != "" && (filepath.Dir(filepath.Clean(path)) == c.dir || filepath.Dir(c.at.Resolve(path)) == filepath.Dir(c.at.Resolve(here)))
}

// same is true for two images that are one, as far as their names tell: of two on a
// network that can't be said, and they are taken for one.
func (c *comparison) same(a, b recover.Image) bool {
	if a.Path == "" && b.Path == "" {
		return a.Source == b.Source && a.Source != recover.SourceNone
	}
	return a.Path != "" && b.Path != "" && c.samePath(a.Path, b.Path)
}

// samePath is true for two paths that lead to the same place, or to the same file.
func (c *comparison) samePath(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) || c.at.Resolve(filepath.Clean(a)) == c.at.Resolve(filepath.Clean(b)) {
		return true
	}
	x, err := c.at.Stat(a)
	if err != nil {
		return false
	}
	y, err := c.at.Stat(b)
	return err == nil && x.Inode() == y.Inode()
}

// isCompared is false for an empty drive, and for a transient disk: libvirt lays an overlay
// over that one at every start, and its writes are meant to be thrown away.
func isCompared(disk recover.Disk) bool {
	return disk.Chain[0].Source != recover.SourceNone && !disk.Transient
}

func withTarget(disks []recover.Disk, target string) int {
	return slices.IndexFunc(disks, func(disk recover.Disk) bool { return disk.Target == target })
}

// nameOf returns an image's path, or what can be said of it instead; empty for an empty
// drive.
func nameOf(image recover.Image) string {
	switch {
	case image.Path != "":
		return image.Path
	case image.Source == recover.SourceNone:
		return ""
	default:
		return "(" + string(image.Source) + ")"
	}
}
