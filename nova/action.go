package nova

import (
	"context"
	"net/http"
)

// longestReason is the limit of a lock's reason in characters
// (nova/api/openstack/compute/schemas/lock_server.py).
const longestReason = 255

// actions change instances, and read what was done to them.
type actions struct{ *session }

// Lock locks an instance. From microversion 2.73 on Nova keeps the first 255
// characters of the reason.
//
// If the token is scoped to the instance's own project, the lock counts as the
// owner's. An owner's lock on an instance that is already locked does nothing; a lock
// by a token of another project replaces the existing one (nova/compute/api.py, lock).
func (c actions) Lock(ctx context.Context, uuid, reason string) error {
	var details any
	if c.minor >= minorReason && reason != "" {
		if letters := []rune(reason); len(letters) > longestReason {
			reason = string(letters[:longestReason])
		}
		details = map[string]string{"locked_reason": reason}
	}
	return c.action(ctx, uuid, "locking", policyLock, false, map[string]any{"lock": details})
}

// KeepsReasons reports whether a lock keeps its reason: from microversion 2.73 on.
func (c actions) KeepsReasons() bool { return c.minor >= minorReason }

// Unlock unlocks an instance. It succeeds for one that is not locked. A lock made by a
// user of another project needs os_compute_api:os-lock-server:unlock:unlock_override.
func (c actions) Unlock(ctx context.Context, uuid string) error {
	return c.action(ctx, uuid, "unlocking", policyUnlock, false, map[string]any{"unlock": nil})
}

// HardReboot requests a hard reboot once and returns when Nova has accepted it.
// recover.ErrTaskUnderWay with Nova's reason when Nova answers 409, for a task in
// progress, a state that does not allow it, or a lock. After
// recover.ErrCloudUnavailable or the context's error Nova may have accepted the
// request: look at the instance.
func (c actions) HardReboot(ctx context.Context, uuid string) error {
	return c.action(ctx, uuid, "hard rebooting", policyReboot, true, map[string]any{"reboot": map[string]string{"type": "HARD"}})
}

// Pause requests once to pause an instance and returns when Nova has accepted it, with
// HardReboot's errors.
func (c actions) Pause(ctx context.Context, uuid string) error {
	return c.action(ctx, uuid, "pausing", policyPause, true, map[string]any{"pause": nil})
}

func (c actions) action(ctx context.Context, uuid, doing, policy string, once bool, body map[string]any) error {
	r := c.instance(doing, uuid, "action")
	r.method, r.body, r.policy, r.once = http.MethodPost, body, policy, once
	r.ok = []int{http.StatusAccepted}
	return c.send(ctx, c.compute, r)
}

// LastReboot returns the request ID of the newest reboot, soft or hard, on the newest
// page of the instance's actions (max_limit of nova.conf, 1000); empty when there is
// none. Nova lists the newest action first (nova/db/main/api.py, actions_get).
func (c actions) LastReboot(ctx context.Context, uuid string) (requestID string, err error) {
	var answer struct {
		Actions []struct {
			Action    string `json:"action"`
			RequestID string `json:"request_id"`
		} `json:"instanceActions"`
	}
	r := c.instance("reading the actions of", uuid, "os-instance-actions")
	r.method, r.into, r.policy = http.MethodGet, &answer, policyActions
	if err := c.send(ctx, c.compute, r); err != nil {
		return "", err
	}
	for _, a := range answer.Actions {
		if a.Action == "reboot" {
			return a.RequestID, nil
		}
	}
	return "", nil
}
