package nova

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover"
)

// optional distinguishes a missing key from null: Nova omits a key that a policy
// hides, and writes null for a value that does not exist.
type optional[T any] struct {
	value   T
	present bool
}

func (o *optional[T]) UnmarshalJSON(text []byte) error {
	o.present = true
	if bytes.Equal(text, []byte("null")) {
		return nil
	}
	return json.Unmarshal(text, &o.value)
}

// record has the keys of Nova's record of an instance that os-rescue reads
// (nova/api/openstack/compute/views/servers.py). gophercloud's servers.Server can't
// tell a missing host from an empty one, and lacks a lock's reason.
type record struct {
	ID           string            `json:"id"`
	Name         optional[string]  `json:"name"`
	ProjectID    string            `json:"tenant_id"`
	Status       string            `json:"status"`
	Host         optional[string]  `json:"OS-EXT-SRV-ATTR:host"`
	Domain       optional[string]  `json:"OS-EXT-SRV-ATTR:instance_name"`
	VMState      optional[string]  `json:"OS-EXT-STS:vm_state"`
	TaskState    optional[string]  `json:"OS-EXT-STS:task_state"`
	PowerState   optional[int]     `json:"OS-EXT-STS:power_state"`
	Locked       optional[bool]    `json:"locked"`
	LockedReason optional[string]  `json:"locked_reason"`
	Fault        optional[message] `json:"fault"`
	// Image is "" for an instance that was booted from a volume, else an object (views/servers.py,
	// _get_image).
	Image json.RawMessage `json:"image"`
}

type message struct {
	Message string `json:"message"`
}

// parseServer reads one record. The server has Unknown set if its cell is down. A
// record that lacks a key is recover.ErrForbidden when a policy can hide that key.
func parseServer(text json.RawMessage) (recover.Server, error) {
	var r record
	if len(text) == 0 {
		return recover.Server{}, errors.New("the answer has no record of an instance")
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return recover.Server{}, fmt.Errorf("a record of an instance can't be read: %w", err)
	}
	if err := uuid.Validate(r.ID); err != nil {
		return recover.Server{}, fmt.Errorf("a record of an instance has the ID %q: %w", r.ID, err)
	}
	s := recover.Server{
		UUID:         r.ID,
		Name:         r.Name.value,
		ProjectID:    r.ProjectID,
		Host:         r.Host.value,
		Domain:       r.Domain.value,
		Status:       r.Status,
		VMState:      r.VMState.value,
		TaskState:    r.TaskState.value,
		PowerState:   r.PowerState.value,
		Locked:       r.Locked.value,
		LockedReason: r.LockedReason.value,
		Fault:        r.Fault.value.Message,
		FromVolume:   string(r.Image) == `""`,
	}
	// Nova's _show_from_down_cell. A complete record may have the status UNKNOWN too,
	// for a vm_state without a status.
	if r.Status == "UNKNOWN" && !r.Name.present && !r.VMState.present {
		return recover.Server{UUID: r.ID, ProjectID: r.ProjectID, Status: r.Status, Unknown: true}, nil
	}
	switch {
	case !r.VMState.present || !r.TaskState.present || !r.PowerState.present:
		return recover.Server{}, hidden(r.ID, "its state", policyExtendedStatus)
	case !r.Host.present || !r.Domain.present:
		return recover.Server{}, hidden(r.ID, "its host", policyExtended)
	case !r.Locked.present:
		return recover.Server{}, fmt.Errorf("the record of instance %s does not say whether it is locked", r.ID)
	}
	return s, nil
}

func hidden(uuid, what, policy string) error {
	return fmt.Errorf("%w: Nova's record of instance %s does not show %s: the policy %s hides it; by default %s has it",
		recover.ErrForbidden, uuid, what, policy, roleOf(policy))
}
