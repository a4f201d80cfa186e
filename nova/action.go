package nova

import (
	"context"
	"net/http"
)

// The longest reason of a lock (nova/api/openstack/compute/schemas/lock_server.py).
const longestReason = 255

// Lock locks an instance. The reason, up to 255 characters of it, is kept from
// microversion 2.73 on.
//
// The lock counts as the owner's when the token is scoped to the instance's own
// project; a lock of the owner on one that is locked already does nothing, and one
// by a token of another project replaces what was there (nova/compute/api.py, lock).
func (c *Client) Lock(ctx context.Context, uuid, reason string) error {
	var details any
	if c.minor >= minorReason && reason != "" {
		if letters := []rune(reason); len(letters) > longestReason {
			reason = string(letters[:longestReason])
		}
		details = map[string]string{"locked_reason": reason}
	}
	return c.action(ctx, uuid, "locking", policyLock, false, map[string]any{"lock": details})
}

// KeepsReasons is true from microversion 2.73 on.
func (c *Client) KeepsReasons() bool { return c.minor >= minorReason }

// Unlock unlocks an instance; not locked is success. A lock that a user of another
// project made needs os_compute_api:os-lock-server:unlock:unlock_override.
func (c *Client) Unlock(ctx context.Context, uuid string) error {
	return c.action(ctx, uuid, "unlocking", policyUnlock, false, map[string]any{"unlock": nil})
}

// HardReboot asks once for a hard reboot and returns when Nova has accepted it.
// recover.ErrTaskUnderWay with Nova's reason when it answers 409: a task under way,
// a state that does not allow it, a lock. After recover.ErrCloudUnavailable, and
// after the context's error, it may have been accepted: look.
func (c *Client) HardReboot(ctx context.Context, uuid string) error {
	return c.action(ctx, uuid, "hard rebooting", policyReboot, true, map[string]any{"reboot": map[string]string{"type": "HARD"}})
}

// Pause asks once to pause an instance and returns when Nova has accepted it.
// Errors as HardReboot's.
func (c *Client) Pause(ctx context.Context, uuid string) error {
	return c.action(ctx, uuid, "pausing", policyPause, true, map[string]any{"pause": nil})
}

func (c *Client) action(ctx context.Context, uuid, doing, policy string, once bool, body map[string]any) error {
	r := c.instance(doing, uuid, "action")
	r.method, r.body, r.policy, r.once = http.MethodPost, body, policy, once
	r.ok = []int{http.StatusAccepted}
	return c.send(ctx, c.compute, r)
}

// LastReboot returns the request ID of the newest reboot, soft or hard, on the newest
// page of the instance's actions (max_limit of nova.conf, 1000); empty when there is
// none. Nova keeps the actions newest first (nova/db/main/api.py, actions_get).
func (c *Client) LastReboot(ctx context.Context, uuid string) (requestID string, err error) {
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
