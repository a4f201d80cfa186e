package e2e

import (
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
