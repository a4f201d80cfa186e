package verdict

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestAnInstanceThatWouldStartOnAnotherFileIsNotIntact(t *testing.T) {
	disk := recover.Disk{Target: "vda", Device: "disk", Chain: []recover.Image{{Source: recover.SourceFile, Path: diskPath, Format: "raw"}}}
	libvirt, conflict := []recover.Starter{recover.StarterLibvirt}, recover.VerdictConflict
	overlay := recover.Divergence{Target: "vda", By: libvirt, Open: "/i/u/snap", Next: diskPath, Below: true, Writable: true}
	apart := overlay
	apart.Apart = true
	drive := recover.Divergence{Target: "hda", By: libvirt, Open: "/iso/one"}
	below := recover.Divergence{Target: "vda", By: libvirt, Over: diskPath, Open: "/i/_base/b", Next: "/i/_base/c"}
	noMedium := recover.Divergence{Target: "hda", By: libvirt, Open: "/iso/one", Next: "/iso/two", Gone: true}
	kernel := recover.Divergence{Target: "kernel", By: libvirt, Next: "/i/u/kernel"}
	gone := recover.Divergence{Target: "vdb", By: libvirt, Next: "/srv/data"}
	for name, c := range map[string]struct {
		state   recover.FileState
		next    recover.Divergence
		verdict recover.Verdict
		whole   bool
		cure    string
	}{
		"all in place":               {state: recover.FilePresent, next: overlay, verdict: conflict, whole: true, cure: "blockcommit"},
		"deleted":                    {state: recover.FileDeleted, next: overlay, verdict: conflict, cure: "--base " + diskPath},
		"deleted below an overlay":   {state: recover.FileDeleted, next: apart, verdict: conflict, cure: "qemu-img commit -d /i/u/snap"},
		"displaced":                  {state: recover.FileDisplaced, next: overlay, verdict: recover.VerdictDisplaced, cure: "blockcommit"},
		"lost":                       {state: recover.FileMissing, next: overlay, verdict: recover.VerdictLost, cure: "blockcommit"},
		"only a drive that is read":  {state: recover.FilePresent, next: drive, verdict: recover.VerdictIntact, whole: true},
		"a start that would fail":    {state: recover.FilePresent, next: gone, verdict: conflict, whole: true, cure: "detach-disk"},
		"another backing file":       {state: recover.FilePresent, next: below, verdict: conflict, whole: true, cure: "<backingStore> of vda"},
		"a drive's medium is gone":   {state: recover.FilePresent, next: noMedium, verdict: conflict, whole: true, cure: "/iso/one as hda"},
		"a kernel is gone":           {state: recover.FilePresent, next: kernel, verdict: conflict, whole: true, cure: "which fetches it again"},
		"deleted, and a read drive":  {state: recover.FileDeleted, next: drive, verdict: recover.VerdictRecoverable},
		"replaced, and another file": {state: recover.FileReplaced, next: overlay, verdict: conflict, cure: "blockcommit"},
	} {
		t.Run(name, func(t *testing.T) {
			remedy := map[recover.FileState]recover.Remedy{
				recover.FileDeleted: recover.RemedyCopy, recover.FileDisplaced: recover.RemedyMoveBack,
				recover.FileMissing: recover.RemedyRestore, recover.FileReplaced: recover.RemedyReplace,
			}[c.state]
			i := recover.Instance{
				Domain: "instance-1", Definition: recover.Domain{State: recover.StateRunning, PID: 10, Disks: []recover.Disk{disk}},
				Files:     []recover.File{{Path: diskPath, Role: recover.RoleDisk, State: c.state, Remedy: remedy}},
				NextStart: []recover.Divergence{c.next},
			}
			Instance(&i)
			if i.Verdict != c.verdict || i.IsWhole() != c.whole {
				t.Errorf("%s, whole: %v; want %s, %v", i.Verdict, i.IsWhole(), c.verdict, c.whole)
			}
			for _, path := range []string{c.next.Open, c.next.Next} {
				if !strings.Contains(strings.Join(i.Reasons, "; "), path) {
					t.Errorf("no reason names %s: %q", path, i.Reasons)
				}
			}
			if !strings.Contains(strings.Join(i.Possible, "; "), c.cure) {
				t.Errorf("%q is not among what is possible: %q", c.cure, i.Possible)
			}
		})
	}
}

func TestAFileThatOnlyQEMUSeesIsAConflictAndNotWhole(t *testing.T) {
	for name, next := range map[string][]recover.Divergence{
		"alone": nil,
		"and its next start opens something else": {{Target: "vdb", Next: "/srv/data"}},
	} {
		i := recover.Instance{Domain: "instance-1", NextStart: next, Files: []recover.File{
			{Path: diskPath, Role: recover.RoleDisk, State: recover.FilePresent, OtherRoot: true, Unseen: true}}}
		Instance(&i)
		if i.Verdict != recover.VerdictConflict || i.IsWhole() {
			t.Errorf("%s: %s, whole: %v", name, i.Verdict, i.IsWhole())
		}
		if !strings.Contains(strings.Join(i.Reasons, ";"), diskPath) || !strings.Contains(strings.Join(i.Possible, ";"), "mount") {
			t.Errorf("%s: %q, %q", name, i.Reasons, i.Possible)
		}
	}
}
