package e2e

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

// TestDirectoriesThatRootHasMadeAreGivenToTheirOwners: an admin's repair by hand, as root.
func TestDirectoriesThatRootHasMadeAreGivenToTheirOwners(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true})
	owner := ownerOf(t, lab.InstancesDir)
	must(t, os.RemoveAll(lab.InstancesDir))
	must(t, os.Mkdir(lab.InstancesDir, 0o700))
	says(t, run(t, l, 0, "scan").Stdout, lab.InstancesDir+" is 0:0 0700, and should be nova:nova 0755")
	says(t, run(t, l, 0, "--all", "--offline", "--dry-run").Stdout, "give "+lab.InstancesDir+" its owner and mode")
	rescue(t, l, 0, "--all")
	v.isBack(t, 1)
	v.intact(t)
	if got := ownerOf(t, lab.InstancesDir); got != owner {
		t.Errorf("%s is %s, and was %s", lab.InstancesDir, got, owner)
	}
	// A run mends those of an earlier one too, of an instance that is whole; it needs no consent.
	must(t, os.Chown(v.Dir, 0, 0))
	got := scan(t, l)[v.UUID]
	if got.Verdict != recover.VerdictIntact || len(got.Directories) != 1 || got.Directories[0].Path != v.Dir {
		t.Errorf("%s", asJSON(t, got))
	}
	pid := v.QemuPID()
	r := of(t, report(t, run(t, l, 0, "--all", "--offline", "--output", "json")), v)
	if r.Outcome != recover.OutcomeIntact {
		t.Errorf("%s", asJSON(t, r))
	}
	if got := scan(t, l)[v.UUID]; len(got.Directories) > 0 || v.QemuPID() != pid {
		t.Errorf("%s", asJSON(t, got))
	}
	v.unharmed(t)
}

// ownerOf returns who owns a directory, and its mode.
func ownerOf(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(dir, &st))
	return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
}
