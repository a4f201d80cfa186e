package scan

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
)

// linkedTree is a fakeTree with directories that are links: link to target.
type linkedTree struct {
	fakeTree
	links map[string]string
}

func (t linkedTree) Resolve(path string) string {
	for link, target := range t.links {
		if recover.IsBelow(path, link) {
			return target + strings.TrimPrefix(path, link)
		}
	}
	return path
}

const (
	nextUUID = "6f0c4e21-3a57-4c9e-9d0b-0c7b3f6c5d11"
	nextDir  = "/i/" + nextUUID
)

func image(path string) recover.Image {
	return recover.Image{Source: recover.SourceFile, Path: path, Format: "qcow2"}
}

func diskOn(target string, paths ...string) recover.Disk {
	d := recover.Disk{Target: target, Device: "disk"}
	for _, path := range paths {
		d.Chain = append(d.Chain, image(path))
	}
	return d
}

func asDrive(d recover.Disk) recover.Disk {
	d.Device, d.ReadOnly = "cdrom", true
	return d
}

func TestWhatTheNextStartOpensIsHeldAgainstWhatIsOpen(t *testing.T) {
	libvirt, nova := []recover.Starter{recover.StarterLibvirt}, []recover.Starter{recover.StarterNova}
	both := []recover.Starter{recover.StarterLibvirt, recover.StarterNova}
	disk, overlay := filepath.Join(nextDir, "disk"), filepath.Join(nextDir, "disk.snap1")
	empty := recover.Disk{Target: "hda", Device: "cdrom", ReadOnly: true, Chain: []recover.Image{{Source: recover.SourceNone}}}
	raw := diskOn("vda", disk)
	raw.Chain[0].Format = "raw"
	optional := asDrive(diskOn("hda", "/iso/gone"))
	optional.Optional = true
	rawBelow, ended := diskOn("vda", disk, "/i/_base/b"), diskOn("vda", disk)
	rawBelow.Chain[1].Format = "raw"
	ended.ChainKnown = true
	transient := diskOn("vda", disk+".TRANSIENT", disk)
	transient.Transient = true
	network := recover.Disk{Target: "vdb", Chain: []recover.Image{{Source: recover.SourceNetwork, Format: "raw"}}}
	block := recover.Disk{Target: "vda", Chain: []recover.Image{{Source: recover.SourceBlock, Path: "/dev/vg/a", Format: "raw"}}}
	otherBlock := recover.Disk{Target: "vda", Chain: []recover.Image{{Source: recover.SourceBlock, Path: "/dev/vg/b", Format: "raw"}}}

	for name, c := range map[string]struct {
		open   []recover.Disk
		next   []recover.Disk // like open if nil; none for noNext
		noNext bool
		noNova bool
		nvram  [2]string
		tree   linkedTree
		want   []recover.Divergence
	}{
		"the same": {open: []recover.Disk{diskOn("vda", disk, "/i/_base/b"), diskOn("vdb", nextDir+"/disk.eph0"),
			diskOn("vdc", nextDir+"/disk.swap"), asDrive(diskOn("hda", nextDir+"/disk.config"))}},
		"in rescue mode": {open: []recover.Disk{diskOn("vda", nextDir+"/disk.rescue"), diskOn("vdb", disk),
			asDrive(diskOn("hda", nextDir+"/disk.config.rescue"))}},
		"a transient domain": {open: []recover.Disk{diskOn("vda", "/srv/a")}, noNext: true, noNova: true},
		"an overlay, and the definition names what lies below": {
			open: []recover.Disk{diskOn("vda", overlay, disk, "/i/_base/b")},
			next: []recover.Disk{diskOn("vda", disk)},
			want: []recover.Divergence{{Target: "vda", By: both, Open: overlay, Next: disk, Below: true, Writable: true}},
		},
		"an overlay that the definition names too": {
			open: []recover.Disk{diskOn("vda", overlay, disk, "/i/_base/b")},
			want: []recover.Divergence{{Target: "vda", By: nova, Open: overlay, Next: disk, Below: true, Writable: true}},
		},
		"the same overlay of a domain that is not Nova's": {
			open:   []recover.Disk{diskOn("vda", overlay, disk, "/i/_base/b")},
			noNova: true,
		},
		"an overlay in another directory": {
			open: []recover.Disk{diskOn("vda", "/srv/snap", disk)},
			want: []recover.Divergence{{Target: "vda", By: nova, Open: "/srv/snap", Next: disk, Below: true, Writable: true}},
		},
		"moved by a block copy to another name": {
			open: []recover.Disk{diskOn("vda", nextDir+"/copy")},
			want: []recover.Divergence{{Target: "vda", By: nova, Open: nextDir + "/copy", Next: disk, Writable: true}},
		},
		"an ephemeral disk that was moved to another name": {
			open: []recover.Disk{diskOn("vda", disk), diskOn("vdb", nextDir+"/disk.eph0.moved")},
			want: []recover.Divergence{{Target: "vdb", By: nova, Open: nextDir + "/disk.eph0.moved", Next: nextDir + "/disk.eph0", Writable: true}},
		},
		"a copy of a disk that it has as well": {
			open: []recover.Disk{diskOn("vda", disk), diskOn("vdb", nextDir+"/disk.copy")},
			want: []recover.Divergence{{Target: "vdb", By: nova, Open: nextDir + "/disk.copy", Writable: true}},
		},
		"a volume's snapshot, as Nova makes it": {
			open: []recover.Disk{diskOn("vda", disk), diskOn("vdb", "/mnt/v.snap", "/mnt/v")},
		},
		"attached to the running guest only": {
			open: []recover.Disk{diskOn("vda", disk), diskOn("vdb", "/srv/data")},
			next: []recover.Disk{diskOn("vda", disk)},
			want: []recover.Divergence{{Target: "vdb", By: both, Open: "/srv/data", Writable: true}},
		},
		"a further disk in its own directory": {
			open: []recover.Disk{diskOn("vda", disk), diskOn("vdb", nextDir+"/extra")},
			next: []recover.Disk{diskOn("vda", disk)},
			want: []recover.Divergence{{Target: "vdb", By: both, Open: nextDir + "/extra", Writable: true}},
		},
		"redefined with another file": {
			open: []recover.Disk{diskOn("vda", disk)},
			next: []recover.Disk{diskOn("vda", "/srv/other")},
			want: []recover.Divergence{{Target: "vda", By: libvirt, Open: disk, Next: "/srv/other", Writable: true, Gone: true}},
		},
		"redefined with another format": {
			open: []recover.Disk{diskOn("vda", disk)},
			next: []recover.Disk{raw},
			want: []recover.Divergence{{Target: "vda", By: libvirt, Open: disk, As: "raw", Writable: true}},
		},
		"redefined with a network disk": {
			open: []recover.Disk{diskOn("vdb", nextDir+"/disk.eph0")},
			next: []recover.Disk{network},
			want: []recover.Divergence{{Target: "vdb", By: libvirt, Open: nextDir + "/disk.eph0", Next: "(network)", Writable: true}},
		},
		"two targets changed places": {
			open: []recover.Disk{diskOn("vda", disk), diskOn("vdb", nextDir+"/disk.eph0")},
			next: []recover.Disk{diskOn("vda", nextDir+"/disk.eph0"), diskOn("vdb", disk)},
		},
		"detached from the running guest only": {
			open: []recover.Disk{diskOn("vda", disk)},
			next: []recover.Disk{diskOn("vda", disk), diskOn("vdb", "/srv/data")},
			tree: linkedTree{fakeTree: fakeTree{"/srv/data": {Device: 1, Inode: 9}}},
		},
		"detached from the running guest only, and deleted since": {
			open: []recover.Disk{diskOn("vda", disk)},
			next: []recover.Disk{diskOn("vda", disk), diskOn("vdb", "/srv/data")},
			want: []recover.Divergence{{Target: "vdb", By: libvirt, Next: "/srv/data"}},
		},
		"a cdrom that was ejected": {
			open: []recover.Disk{diskOn("vda", disk), empty},
			next: []recover.Disk{diskOn("vda", disk), asDrive(diskOn("hda", "/iso/one"))},
			tree: linkedTree{fakeTree: fakeTree{"/iso/one": {Device: 1, Inode: 9}}},
		},
		"a cdrom that was ejected and deleted, without which it starts": {
			open: []recover.Disk{diskOn("vda", disk), empty},
			next: []recover.Disk{diskOn("vda", disk), optional},
		},
		"a cdrom that was changed, and its first medium deleted": {
			open: []recover.Disk{diskOn("vda", disk), asDrive(diskOn("hda", "/iso/two"))},
			next: []recover.Disk{diskOn("vda", disk), asDrive(diskOn("hda", "/iso/one"))},
			want: []recover.Divergence{{Target: "hda", By: both, Open: "/iso/two", Next: "/iso/one", Gone: true}},
		},
		"its own chain in the definition": {
			open: []recover.Disk{diskOn("vda", disk, "/i/_base/b")},
			next: []recover.Disk{diskOn("vda", disk, "/i/_base/b")},
		},
		"another backing file in the definition": {
			open: []recover.Disk{diskOn("vda", disk, "/i/_base/b")},
			next: []recover.Disk{diskOn("vda", disk, "/i/_base/c")},
			want: []recover.Divergence{{Target: "vda", By: libvirt, Over: disk, Open: "/i/_base/b", Next: "/i/_base/c"}},
		},
		"another layer deep in the definition": {
			open: []recover.Disk{diskOn("vda", disk, "/i/_base/b", "/i/_base/a")},
			next: []recover.Disk{diskOn("vda", disk, "/i/_base/b", "/i/_base/c")},
			want: []recover.Divergence{{Target: "vda", By: libvirt, Over: "/i/_base/b", Open: "/i/_base/a", Next: "/i/_base/c"}},
		},
		"a backing file of another format in the definition": {
			open: []recover.Disk{diskOn("vda", disk, "/i/_base/b")},
			next: []recover.Disk{rawBelow},
			want: []recover.Divergence{{Target: "vda", By: libvirt, Over: disk, Open: "/i/_base/b", Next: "/i/_base/b", As: "raw"}},
		},
		"no backing file in the definition": {
			open: []recover.Disk{diskOn("vda", disk, "/i/_base/b")},
			next: []recover.Disk{ended},
			want: []recover.Divergence{{Target: "vda", By: libvirt, Over: disk, Open: "/i/_base/b"}},
		},
		"a backing file that the guest does not have": {
			open: []recover.Disk{diskOn("vda", disk)},
			next: []recover.Disk{diskOn("vda", disk, "/i/_base/b")},
			want: []recover.Divergence{{Target: "vda", By: libvirt, Over: disk, Next: "/i/_base/b"}},
		},
		"a cdrom that was put in": {
			open: []recover.Disk{diskOn("vda", disk), asDrive(diskOn("hda", "/iso/one"))},
			next: []recover.Disk{diskOn("vda", disk), empty},
			want: []recover.Divergence{{Target: "hda", By: both, Open: "/iso/one"}},
		},
		"a name with dots in it": {
			open: []recover.Disk{diskOn("vda", nextDir+"/../"+nextUUID+"/disk")},
			next: []recover.Disk{diskOn("vda", disk)},
		},
		"through a link, and all is deleted": {
			open: []recover.Disk{diskOn("vda", disk)},
			next: []recover.Disk{diskOn("vda", "/link/"+nextUUID+"/disk")},
			tree: linkedTree{links: map[string]string{"/link": "/i"}},
		},
		"opened through a link": {
			open: []recover.Disk{diskOn("vda", "/link/"+nextUUID+"/disk")},
			next: []recover.Disk{diskOn("vda", disk)},
			tree: linkedTree{links: map[string]string{"/link": "/i"}},
		},
		"two names of one file": {
			open: []recover.Disk{diskOn("vda", disk)},
			next: []recover.Disk{diskOn("vda", "/srv/hard")},
			tree: linkedTree{fakeTree: fakeTree{disk: {Device: 1, Inode: 7}, "/srv/hard": {Device: 1, Inode: 7}}},
		},
		"a transient disk": {open: []recover.Disk{transient}, next: []recover.Disk{diskOn("vda", disk)}},
		"block devices are not its business": {
			open: []recover.Disk{block}, next: []recover.Disk{otherBlock},
		},
		"moved onto a block device": {
			open: []recover.Disk{block}, next: []recover.Disk{diskOn("vda", disk)},
			want: []recover.Divergence{{Target: "vda", By: both, Open: "/dev/vg/a", Next: disk, Writable: true, Gone: true}},
		},
		"another variable store": {
			open: []recover.Disk{diskOn("vda", disk)}, nvram: [2]string{"/v/a", "/v/b"},
			want: []recover.Divergence{{Target: "nvram", By: libvirt, Open: "/v/a", Next: "/v/b", Writable: true}},
		},
		"a variable store that libvirt will name": {
			open: []recover.Disk{diskOn("vda", disk)}, nvram: [2]string{"/v/a", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := recover.Instance{UUID: nextUUID, Process: recover.ProcessIdentity{PID: 10}, Definition: recover.Domain{
				UUID: nextUUID, Disks: c.open, NVRAM: c.nvram[0], Next: &recover.Definition{Disks: c.next, NVRAM: c.nvram[1]},
				Nova: &recover.NovaMetadata{},
			}}
			if c.next == nil {
				i.Definition.Next.Disks = c.open
			}
			if c.noNext {
				i.Definition.Next = nil
			}
			if c.noNova {
				i.Definition.Nova = nil
			}
			if diff := cmp.Diff(c.want, nextStart(i, "/i", c.tree)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestADeletedFileBelowAnOverlayIsApartFromWhatComesBackWhereQEMUWouldWriteIt(t *testing.T) {
	disk, overlay := filepath.Join(nextDir, "disk"), filepath.Join(nextDir, "disk.snap1")
	for name, c := range map[string]struct {
		state    recover.FileState
		pid      int // of who has it open
		writable bool
		apart    bool
	}{
		"in its place":                            {recover.FilePresent, 20, true, false},
		"deleted, then the snapshot was made":     {recover.FileDeleted, 20, true, true},
		"and put back":                            {recover.FileReplaced, 20, true, true},
		"the snapshot was made, then deleted":     {recover.FileDeleted, 20, false, false},
		"and put back by a rescue":                {recover.FileReplaced, 20, false, false},
		"deleted, and somebody else has it":       {recover.FileDeleted, 30, true, false},
		"renamed, to be given back the very file": {recover.FileDisplaced, 20, true, false},
	} {
		i := recover.Instance{UUID: nextUUID, PID: 20, Files: []recover.File{{Path: overlay, State: recover.FilePresent},
			{Path: disk, State: c.state, Holders: []recover.Holder{{PID: c.pid, Writable: c.writable}}}}}
		i.Definition = recover.Domain{UUID: nextUUID, PID: 20, Disks: []recover.Disk{diskOn("vda", overlay, disk)},
			Next: &recover.Definition{Disks: []recover.Disk{diskOn("vda", disk)}}}
		if got := nextStart(i, "/i", linkedTree{}); len(got) != 1 || !got[0].Below || got[0].Apart != c.apart {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAnOverlayThatIsHeldForAGuestThatEndedIsWhatItWrote(t *testing.T) {
	disk, overlay := filepath.Join(nextDir, "disk"), filepath.Join(nextDir, "disk.snap1")
	held := []recover.Holder{{PID: 20}}
	off := func(paths ...string) recover.Instance {
		i := recover.Instance{UUID: nextUUID, Definition: recover.Domain{UUID: nextUUID, Disks: []recover.Disk{diskOn("vda", disk)}}}
		for _, path := range paths {
			i.Files = append(i.Files, recover.File{Path: path, Role: recover.RoleDisk, Target: "vda", Holders: held})
		}
		return i
	}
	for name, c := range map[string]struct {
		i    recover.Instance
		want []recover.Divergence
	}{
		"its definition names it": {i: off(disk)},
		"its definition names what lies below": {i: off(disk, overlay), want: []recover.Divergence{
			{Target: "vda", By: []recover.Starter{recover.StarterLibvirt}, Open: overlay, Next: disk, Writable: true}}},
		"a rescue mode that has ended": {i: off(disk, nextDir+"/disk.rescue")},
	} {
		if diff := cmp.Diff(c.want, nextStart(c.i, "/i", linkedTree{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}

	// libvirt has forgotten it: the guard's record has both definitions.
	i := off(disk, overlay)
	i.Definition.Disks = []recover.Disk{diskOn("vda", overlay, disk)}
	i.Definition.Next = &recover.Definition{Disks: []recover.Disk{diskOn("vda", disk)}}
	if got := nextStart(i, "/i", linkedTree{}); len(got) != 1 || got[0].Open != overlay || got[0].Next != disk || !got[0].Below {
		t.Errorf("of the guard's record: %+v", got)
	}
}

func TestAGuestWhoseMemoryIsSavedGoesOnWithTheDisksThatItWasSavedWith(t *testing.T) {
	disk, moved := filepath.Join(nextDir, "disk"), filepath.Join(nextDir, "disk.moved")
	both := linkedTree{fakeTree: fakeTree{disk: {Device: 1, Inode: 7}, moved: {Device: 1, Inode: 8}}}
	none := linkedTree{fakeTree: fakeTree{moved: {Device: 1, Inode: 8}}}
	libvirt := []recover.Starter{recover.StarterLibvirt}
	cdrom := asDrive(diskOn("hda", "/iso/gone"))
	optional := cdrom
	optional.Optional = true
	requisite := cdrom
	requisite.Requisite = true
	held := []recover.File{{Path: disk, Role: recover.RoleDisk, Target: "vda", Holders: []recover.Holder{{PID: 20}}}}
	for name, c := range map[string]struct {
		saved   []recover.Disk
		defined []recover.Disk // diskOn("vda", moved) if nil
		files   []recover.File
		tree    linkedTree
		want    []recover.Divergence
		serious bool
	}{
		"the file of its definition": {saved: []recover.Disk{diskOn("vda", moved)}, tree: both},
		"another file": {saved: []recover.Disk{diskOn("vda", disk)}, tree: both, serious: true,
			want: []recover.Divergence{{Target: "vda", By: libvirt, Open: moved, Next: disk, Writable: true, Saved: true}}},
		"a file that is gone": {saved: []recover.Disk{diskOn("vda", disk)}, tree: none, serious: true,
			want: []recover.Divergence{{Target: "vda", By: libvirt, Open: moved, Next: disk, Writable: true, Saved: true, Gone: true}}},
		"a file that a run would put back": {saved: []recover.Disk{diskOn("vdb", disk)}, files: held, tree: none, serious: true,
			want: []recover.Divergence{{Target: "vdb", By: libvirt, Next: disk, Writable: true, Saved: true}}},
		"a disk more": {saved: []recover.Disk{diskOn("vda", moved), diskOn("vdz", disk)}, tree: both, serious: true,
			want: []recover.Divergence{{Target: "vdz", By: libvirt, Next: disk, Writable: true, Saved: true}}},
		"a medium that is gone": {saved: []recover.Disk{diskOn("vda", moved), cdrom}, tree: both, serious: true,
			want: []recover.Divergence{{Target: "hda", By: libvirt, Next: "/iso/gone", Saved: true, Gone: true}}},
		"a medium that only a cold start needs": {saved: []recover.Disk{diskOn("vda", moved), requisite}, tree: both,
			want: []recover.Divergence{{Target: "hda", By: libvirt, Next: "/iso/gone", Saved: true}}},
		"a medium that need not be there": {saved: []recover.Disk{diskOn("vda", moved), optional}, tree: both,
			want: []recover.Divergence{{Target: "hda", By: libvirt, Next: "/iso/gone", Saved: true}}},
	} {
		i := recover.Instance{UUID: nextUUID, Files: c.files, Definition: recover.Domain{
			UUID: nextUUID, Disks: []recover.Disk{diskOn("vda", moved)}, Saved: &recover.Definition{Disks: c.saved}}}
		got := nextStart(i, "/i", c.tree)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
		if len(got) > 0 && got[0].IsSerious() != c.serious {
			t.Errorf("%s: serious: %v", name, got[0].IsSerious())
		}
	}
}

func TestASavedGuestOnASnapshotKeepsWhatWasWrittenSince(t *testing.T) {
	disk, snap := filepath.Join(nextDir, "disk"), filepath.Join(nextDir, "disk.snap")
	there := linkedTree{fakeTree: fakeTree{disk: {Device: 1, Inode: 7}, snap: {Device: 1, Inode: 8}}}
	saved := diskOn("vda", snap)
	saved.Chain = append(saved.Chain, diskOn("vda", disk).Chain...)
	i := recover.Instance{UUID: nextUUID, Definition: recover.Domain{UUID: nextUUID, Nova: &recover.NovaMetadata{},
		Disks: []recover.Disk{diskOn("vda", disk)}, Saved: &recover.Definition{Disks: []recover.Disk{saved}}}}
	i.NextStart = nextStart(i, "/i", there)
	want := []recover.Divergence{{Target: "vda", By: []recover.Starter{recover.StarterLibvirt, recover.StarterNova},
		Open: disk, Next: snap, Writable: true, Saved: true, Below: true}}
	if diff := cmp.Diff(want, i.NextStart); diff != "" {
		t.Fatal(diff)
	}
	cure := i.CureOfNextStart()
	if !strings.Contains(cure, "since the snapshot is in "+snap+" alone") || strings.Contains(cure, "else virsh") {
		t.Errorf("its cure: %s", cure)
	}
	why := i.StartsElsewhere(recover.StarterNova)
	if !strings.Contains(why, "discard the memory") || strings.Contains(why, "through libvirt") {
		t.Errorf("through Nova: %s", why)
	}
	if why = i.StartsElsewhere(recover.StarterLibvirt); !strings.Contains(why, "would open that") || strings.Contains(why, "Nova") {
		t.Errorf("through libvirt: %s", why)
	}
}

func TestAKernelThatIsGoneKeepsLibvirtFromStartingTheGuest(t *testing.T) {
	boot := recover.BootFiles(nextDir+"/kernel", nextDir+"/ramdisk", "relative")
	disk := diskOn("vda", filepath.Join(nextDir, "disk"))
	there := linkedTree{fakeTree: fakeTree{nextDir + "/kernel": {Device: 1, Inode: 7}}}
	held := []recover.File{{Path: nextDir + "/ramdisk", Role: recover.RoleOther, Holders: []recover.Holder{{PID: 20}}}}
	missing := []recover.Divergence{{Target: "initrd", By: []recover.Starter{recover.StarterLibvirt}, Next: nextDir + "/ramdisk"}}
	for name, c := range map[string]struct {
		pid   int
		next  *recover.Definition
		files []recover.File
		want  []recover.Divergence
	}{
		"running":                             {pid: 10, next: &recover.Definition{Disks: []recover.Disk{disk}, Boot: boot}, want: missing},
		"off":                                 {want: missing},
		"off, and the guard will put it back": {files: held},
		"running and transient":               {pid: 10},
	} {
		i := recover.Instance{UUID: nextUUID, Process: recover.ProcessIdentity{PID: c.pid}, Files: c.files, Definition: recover.Domain{
			UUID: nextUUID, Disks: []recover.Disk{disk}, Boot: boot, Next: c.next, Nova: &recover.NovaMetadata{}}}
		if diff := cmp.Diff(c.want, nextStart(i, "/i", there)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}
