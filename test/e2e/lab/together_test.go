package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

func TestAProjectsGuestsAreRescuedTogetherAndNobodyElses(t *testing.T) {
	const shop, other = "11111111111111111111111111111111", "22222222222222222222222222222222"
	l := lab.New(t, withFailpoints)
	guests := bootAll(t, l,
		lab.Spec{ProjectID: shop, ProjectName: "shop", Image: "debian-12", NoAgent: true},
		lab.Spec{ProjectID: shop, ProjectName: "shop", Image: "debian-12", NoAgent: true},
		lab.Spec{ProjectID: shop, ProjectName: "shop", Image: "ubuntu-24.04", NoAgent: true},
		lab.Spec{ProjectID: other, ProjectName: "other", Image: "ubuntu-24.04", NoAgent: true},
	)
	l.DeleteTree(t)
	bystander, pid := guests[3], guests[3].QemuPID()

	ran := rescue(t, l, 0, "--project", "shop", "--parallel", "2")
	if len(ran.Instances) != 3 {
		t.Errorf("the run was about %d instances, want 3", len(ran.Instances))
	}
	for _, v := range guests[:3] {
		if got := of(t, ran, v); got.Outcome != recover.OutcomeRescued {
			t.Errorf("%s: %s", v.Name, asJSON(t, got))
		}
		v.isBack(t, 1)
		v.holdsWhatIsPublished(t)
	}
	for _, base := range []string{guests[0].Base, guests[2].Base} {
		if n := count(t, ran.Run, "copy.begin", base); n != 1 {
			t.Errorf("the backing file %s was copied %d times, want once", base, n)
		}
	}
	if bystander.QemuPID() != pid || exists(bystander.Dir) {
		t.Error("the other project's guest was touched")
	}
	bystander.unharmed(t)

	ran = rescue(t, l, 0, "--project", other)
	if len(ran.Instances) != 1 || of(t, ran, bystander).Outcome != recover.OutcomeRescued {
		t.Errorf("by the project's ID: %s", asJSON(t, ran))
	}
	bystander.isBack(t, 1)
	for _, v := range guests {
		v.intact(t)
	}
}

// TestTwoHostsThatShareABaseRescueAtTheSameTime: each has its own state and its own /run, and one of the two guests.
func TestTwoHostsThatShareABaseRescueAtTheSameTime(t *testing.T) {
	l := lab.New(t, withFailpoints)
	guests := bootAll(t, l, lab.Spec{NoAgent: true}, lab.Spec{NoAgent: true})
	for range 3 {
		l.DeleteTree(t)
		var runs []*lab.Process
		for n, v := range guests {
			host := "/run/host-" + string(rune('a'+n))
			env := []string{"OS_RESCUE_STATE_DIR=" + host, "OS_RESCUE_RUN_DIR=" + host + "-run"}
			runs = append(runs, l.StartCommand(t, env, "--instance", v.Name, "--offline", "--yes"))
		}
		for n, v := range guests {
			if r := runs[n].Wait(t); r.Code != 0 {
				t.Fatalf("host %d: %s%s", n, r.Stdout, r.Stderr)
			}
			v.isBack(t, 1)
		}
	}
	// A third host knows of neither run, and its guests hold the base of before.
	data, err := os.ReadFile(guests[0].Base)
	must(t, err)
	must(t, os.Remove(guests[0].Base))
	must(t, os.WriteFile(guests[0].Base, data, 0o644))
	for _, v := range guests {
		v.intact(t)
	}
	says(t, run(t, l, 0, "--all", "--offline", "--dry-run").Stdout, "intact")
	must(t, os.WriteFile(guests[0].Base, append(data[:len(data)-1], data[len(data)-1]+1), 0o644))
	out := run(t, l, 0, "scan").Stdout
	says(t, out, "conflict", "it differs", "os-rescue --all --dry-run")
	if strings.Contains(out, "--all --replace-existing") {
		t.Errorf("the next step is to replace: %s", out)
	}
}
