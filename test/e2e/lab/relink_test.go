package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

// TestAFileThatStillHasANameGetsTheRightOneWhileTheGuestWrites: whatever was renamed, moved
// away or has a hard link left is the very file that QEMU has open.
func TestAFileThatStillHasANameGetsTheRightOneWhileTheGuestWrites(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true})
	pid := v.QemuPID()
	var info os.FileInfo
	for _, c := range []struct {
		name    string
		lose    func(t *testing.T)
		verdict recover.Verdict
		remedy  recover.Remedy
		says    string // by the plan
		consent bool
	}{
		{"mv disk disk.bak", func(t *testing.T) {
			must(t, os.Rename(v.Disk, v.Disk+".bak"))
		}, recover.VerdictDisplaced, recover.RemedyMoveBack, "mv " + v.Disk + ".bak " + v.Disk, true},
		{"mv UUID UUID.bak", func(t *testing.T) {
			must(t, os.Rename(v.Dir, v.Dir+".bak"))
		}, recover.VerdictDisplaced, recover.RemedyMoveBack, "mv " + v.Dir + ".bak/disk " + v.Disk, true},
		{"mv instances instances.old", func(t *testing.T) {
			must(t, os.Rename(lab.InstancesDir, lab.InstancesDir+".old"))
		}, recover.VerdictDisplaced, recover.RemedyMoveBack, "mv " + lab.InstancesDir + ".old/", true},
		{"a hard link is left", func(t *testing.T) {
			must(t, os.Link(v.Disk, filepath.Join(lab.InstancesDir, "kept")))
			must(t, os.Remove(v.Disk))
		}, recover.VerdictRecoverable, recover.RemedyLinkBack, "link " + v.Disk + " back", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			info, err = os.Stat(v.Disk)
			must(t, err)
			c.lose(t)
			got := scan(t, l)[v.UUID]
			if f := fileOf(t, got, v.Disk); got.Verdict != c.verdict || f.Remedy != c.remedy {
				t.Fatalf("scanned: %s, %s", got.Verdict, asJSON(t, f))
			}
			says(t, run(t, l, 0, "--all", "--offline", "--dry-run").Stdout, c.says)
			if c.consent {
				says(t, run(t, l, 2, "--all", "--offline").Stderr, "renames files of "+v.Name, "--yes")
			}
			args := []string{"--all", "--offline", "--output", "json"}
			if c.consent {
				args = append(args, "--yes")
			}
			r := of(t, report(t, run(t, l, 0, args...)), v)
			if r.Outcome != recover.OutcomeRescued || r.PauseSeconds != 0 || r.DowntimeSeconds != 0 {
				t.Fatalf("%s", asJSON(t, r))
			}
			v.unharmed(t)
			v.intact(t)
			if now, err := os.Stat(v.Disk); err != nil || !os.SameFile(info, now) || v.QemuPID() != pid {
				t.Errorf("the disk is another file, or QEMU another process: %v", err)
			}
		})
	}
	// And with all of that it starts again.
	l.Virsh(t, "destroy", v.Name)
	l.Virsh(t, "start", v.Name)
	v.isBack(t, 1)
}
