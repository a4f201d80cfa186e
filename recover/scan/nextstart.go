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
// Nova would define. Only the top image of each disk is compared: a definition that is
// not active seldom names what lies below.
//
// An instance that is off has what its definition names; but a disk that is held for it and that its
// definition no longer names is one that its guest had.
func nextStart(i recover.Instance, instancesPath string, at places) []recover.Divergence {
	c := comparison{domain: i.Definition, dir: filepath.Join(instancesPath, i.UUID), at: at}
	if i.Definition.Next != nil {
		c.byLibvirt(*i.Definition.Next, i.Files)
	}
	if i.Process.PID != 0 || i.Definition.Next != nil {
		c.byNova()
	} else {
		c.bySelf(i.Files)
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
		if !isCompared(disk) || c.isNamed(disk, next.Disks) {
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
		}
		c.add(recover.StarterLibvirt, d)
	}
	for _, disk := range next.Disks {
		top := disk.Chain[0]
		if top.Source != recover.SourceFile || isOptional(disk) || c.isOpen(top) || c.isInPlace(top.Path, files) {
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

// novaNames are the disks that Nova makes in an instance's directory
// (nova/virt/libvirt/blockinfo.py, get_disk_mapping, and driver.py,
// _create_and_inject_local_root and rescue).
var novaNames = regexp.MustCompile(`^disk(\.local|\.eph[0-9]+|\.swap|\.config|\.rescue|\.config\.rescue)?$`)

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
			root := recover.Image{Source: recover.SourceFile, Path: filepath.Join(c.dir, "disk")}
			if !c.isOpen(root) {
				d.Next = root.Path
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

// add notes a divergence. One that was found before gets a further starter.
func (c *comparison) add(by recover.Starter, d recover.Divergence) {
	for n := range c.found {
		f := &c.found[n]
		if f.Target == d.Target && f.Open == d.Open && f.Next == d.Next && f.As == d.As {
			if !slices.Contains(f.By, by) {
				f.By = append(slices.Clone(f.By), by)
			}
			return
		}
	}
	d.By = []recover.Starter{by}
	c.found = append(c.found, d)
}

// isNamed is true when a disk's file is named among others, by whatever target, in the
// format that QEMU has it in.
func (c *comparison) isNamed(disk recover.Disk, others []recover.Disk) bool {
	top := disk.Chain[0]
	return slices.ContainsFunc(others, func(o recover.Disk) bool {
		other := o.Chain[0]
		return c.same(other, top) && (other.Format == top.Format || other.Format == "" || top.Format == "")
	})
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
	return disk.Chain[0].Source != recover.SourceNone &&
		!slices.ContainsFunc(disk.Unusual, func(u string) bool { return strings.HasPrefix(u, "transient") })
}

// isOptional is true for a disk without which a start goes on.
func isOptional(disk recover.Disk) bool {
	return slices.ContainsFunc(disk.Unusual, func(u string) bool { return strings.HasPrefix(u, "startupPolicy ") })
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
