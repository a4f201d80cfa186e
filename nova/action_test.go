package nova

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestAnAdminsLockStopsTheOwnerAndNotTheAdmin(t *testing.T) {
	cloud := openCloud(t, "lock")
	web2 := cloud.Vars["web2"]
	admin, owner := cloud.admin(t), cloud.member(t)
	if err := admin.Lock(t.Context(), web2, "mine"); err != nil {
		t.Fatal(err)
	}
	mention(t, owner.HardReboot(t.Context(), web2), recover.ErrTaskUnderWay, "is locked", web2)
	mention(t, owner.Pause(t.Context(), web2), recover.ErrTaskUnderWay, "is locked")
	mention(t, owner.Unlock(t.Context(), web2), recover.ErrForbidden,
		"os_compute_api:os-lock-server:unlock:unlock_override", "role admin")

	// The owner's lock on top changes nothing.
	if err := owner.Lock(t.Context(), web2, "no, mine"); err != nil {
		t.Fatal(err)
	}
	s, err := admin.Server(t.Context(), web2)
	if err != nil || s.LockedReason != "mine" {
		t.Errorf("reason %q, %v; want the admin's", s.LockedReason, err)
	}

	if id, err := admin.LastReboot(t.Context(), web2); id != "" || err != nil {
		t.Errorf("LastReboot before any = %q, %v", id, err)
	}
	if err := admin.HardReboot(t.Context(), web2); err != nil {
		t.Fatalf("an admin passes the lock: %v", err)
	}
	first, err := admin.LastReboot(t.Context(), web2)
	if first == "" || err != nil {
		t.Errorf("LastReboot after one = %q, %v", first, err)
	}
	sweep(t, admin, web2, recover.VMActive)
	if err := admin.Unlock(t.Context(), web2); err != nil {
		t.Fatal(err)
	}
	if err := admin.HardReboot(t.Context(), web2); err != nil {
		t.Fatal(err)
	}
	second, err := admin.LastReboot(t.Context(), web2)
	if second == "" || second == first || err != nil {
		t.Errorf("LastReboot after two = %q, %v; the first was %q", second, err, first)
	}
	sweep(t, admin, web2, recover.VMActive)
}

func TestALockOfTheOwnersProjectCanBeUndoneByItsMembers(t *testing.T) {
	cloud := openCloud(t, "owner-lock")
	owner := cloud.member(t)
	if err := owner.Lock(t.Context(), cloud.Vars["web3"], ""); err != nil {
		t.Fatal(err)
	}
	if err := owner.Unlock(t.Context(), cloud.Vars["web3"]); err != nil {
		t.Fatal(err)
	}
}

func TestNovasReasonForA409IsPassedOn(t *testing.T) {
	cloud := openCloud(t, "conflicts")
	c := cloud.admin(t)
	web3, web4 := cloud.Vars["web3"], cloud.Vars["web4"]
	if bed != nil {
		bed.act(web3, map[string]any{"rescue": nil})
		bed.undo = append(bed.undo, func() { bed.act(web3, map[string]any{"unrescue": nil}) })
	}
	if s := sweep(t, c, web3, recover.VMRescued); s.Status != "RESCUE" {
		t.Errorf("the rescued one: %+v", s)
	}
	mention(t, c.HardReboot(t.Context(), web3), recover.ErrTaskUnderWay, "while it is in vm_state rescued")

	if bed != nil {
		bed.act(web4, map[string]any{"os-stop": nil})
	}
	s, err := c.Server(t.Context(), web4)
	if err != nil || s.TaskState != "powering-off" {
		t.Errorf("the one that is being stopped: %+v, %v", s, err)
	}
	mention(t, c.HardReboot(t.Context(), web4), recover.ErrTaskUnderWay, "while it is in task_state powering-off")
	if s := sweep(t, c, web4, recover.VMStopped); s.Status != "SHUTOFF" || s.PowerState != 4 {
		t.Errorf("the stopped one: %+v", s)
	}
	mention(t, c.Pause(t.Context(), web4), recover.ErrTaskUnderWay, "vm_state stopped")
	if err := c.HardReboot(t.Context(), web4); err != nil {
		t.Errorf("a stopped instance: %v", err)
	}
	sweep(t, c, web4, recover.VMActive)
	if err := c.Pause(t.Context(), web4); err != nil {
		t.Fatal(err)
	}
	if s := sweep(t, c, web4, recover.VMPaused); s.PowerState != 3 {
		t.Errorf("the paused one: %+v", s)
	}
}
