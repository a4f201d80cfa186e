package recover

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Errors that an implementation of Cloud returns, for errors.Is.
var (
	// ErrNoInstance: Nova has no such instance (any more). It is never returned for an
	// instance that Nova can't see because its cell is down.
	ErrNoInstance = errors.New("Nova knows no such instance") //nolint:staticcheck // a name
	// ErrCloudUnavailable: Nova or Keystone can't be reached or is broken (5xx,
	// no connection), and trying again did not help.
	ErrCloudUnavailable = errors.New("the OpenStack API does not answer")
	// ErrCloudAnswer: something answers, and not as Nova or Keystone do: a proxy, a login page.
	// It is ErrCloudUnavailable too.
	ErrCloudAnswer error = answerError{}
	// ErrCredentials: there are no credentials, or they are not accepted.
	ErrCredentials = errors.New("can't sign in to OpenStack")
	// ErrForbidden: the user has no right to do this. The text names the policy and the
	// role that usually has the right.
	ErrForbidden = errors.New("the OpenStack user has no right to do this")
	// ErrTaskUnderWay: Nova answers 409, because a task is under way or the state of the
	// instance does not allow this now.
	ErrTaskUnderWay = errors.New("Nova does not allow it now") //nolint:staticcheck // a name
	// ErrAmbiguous: several projects have the name that was given.
	ErrAmbiguous = errors.New("the name is ambiguous")
	// ErrNoProject: Keystone knows no project of that name or ID.
	ErrNoProject = errors.New("no such project")
)

type answerError struct{}

func (answerError) Error() string { return "what answers for the OpenStack API is not understood" }

func (answerError) Is(target error) bool { return target == ErrCloudUnavailable }

// The values of vm_state that os-rescue distinguishes (nova/compute/vm_states.py).
const (
	VMActive    = "active"
	VMPaused    = "paused"
	VMStopped   = "stopped"
	VMSuspended = "suspended"
	VMRescued   = "rescued"
	VMResized   = "resized" // status VERIFY_RESIZE
	VMError     = "error"
	VMShelved   = "shelved"
	// VMDeleted is the last moment of a deletion: the task is over, but the record still
	// exists (nova/compute/manager.py, _delete_instance and _complete_deletion).
	VMDeleted = "deleted"
	// VMShelvedOffloaded still has a host for a moment, without a task
	// (nova/compute/manager.py, _shelve_offload_instance).
	VMShelvedOffloaded = "shelved_offloaded"
	// VMSoftDeleted is status SOFT_DELETED: its owner has deleted it, and Nova keeps it, off,
	// until reclaim_instance_interval is over (nova/compute/api.py, soft_delete).
	VMSoftDeleted = "soft-delete"
)

// Server is an instance as Nova sees it.
type Server struct {
	UUID      string `json:"uuid"`       // of the instance, lower case
	Name      string `json:"name"`       // the display name, which need not be unique
	ProjectID string `json:"project_id"` // of the project that owns it
	// Host is the compute service that has it (OS-EXT-SRV-ATTR:host); empty when none
	// has it.
	Host string `json:"host"`
	// Domain is the name of its libvirt domain (OS-EXT-SRV-ATTR:instance_name).
	Domain string `json:"domain"`
	Status string `json:"status"` // ACTIVE, SHUTOFF, ERROR, VERIFY_RESIZE, ...
	// VMState is one of Nova's vm_states, in lower case: VMActive, ...
	VMState string `json:"vm_state"`
	// TaskState is the task that is under way (nova/compute/task_states.py); empty when
	// none is.
	TaskState string `json:"task_state,omitempty"`
	// PowerState is Nova's number: 1 running, 3 paused, 4 shut down
	// (nova/compute/power_state.py).
	PowerState int  `json:"power_state"`
	Locked     bool `json:"locked"` // by anybody
	// LockedReason is the reason of the lock; empty before microversion 2.73.
	LockedReason string `json:"locked_reason,omitempty"`
	// Fault is the message of the last fault of an instance in ERROR.
	Fault string `json:"fault,omitempty"`
	// FromVolume is true when it was booted from a volume: it has no disk of its own.
	FromVolume bool `json:"from_volume,omitempty"`
	// Unknown is true when the instance's cell does not answer. Then only its UUID, and
	// perhaps its ProjectID, is known. It is not deleted.
	Unknown bool `json:"unknown,omitempty"`
}

// ServerFilter selects the instances to list. An empty field selects all.
type ServerFilter struct {
	ProjectID string   // of one project
	Hosts     []string // on any of these compute hosts
}

// ComputeService is the state of a host's nova-compute.
type ComputeService struct {
	Known          bool      // false when Nova has no nova-compute for that host
	Up             bool      // it has reported to Nova of late
	Disabled       bool      // the scheduler gives it no new instances
	DisabledReason string    // as whoever disabled it wrote; may be empty
	UpdatedAt      time.Time // when it last reported
}

// Cloud is what os-rescue needs of Keystone and Nova. It must be safe for
// concurrent use. Each method retries, within limits, after errors that are likely to
// pass (5xx, a broken connection, 429), and renews an expired token. A request that
// must not be carried out twice and may have been accepted is not repeated before the
// state has been read.
//
// Every method may return ErrCloudUnavailable, ErrForbidden, ErrCredentials, or
// the context's error.
type Cloud interface {
	// Project returns the ID of the project of that name or ID. domain, the name or ID
	// of its Keystone domain, may be empty. ErrNoProject, ErrAmbiguous, or ErrForbidden
	// when the user may not look up projects.
	Project(ctx context.Context, nameOrID, domain string) (id string, err error)

	// OwnProject returns the ID of the project to which the token is scoped; empty for a
	// token of another scope.
	OwnProject() string

	// Servers returns all instances that the filter selects, of all projects and all
	// pages, without deleted ones. Those of a cell that is down have Unknown set.
	Servers(ctx context.Context, filter ServerFilter) ([]Server, error)

	// Server returns one instance as it is now. ErrNoInstance.
	Server(ctx context.Context, uuid string) (Server, error)

	// Deleted is true when Nova lists the instance as deleted. false proves nothing: it
	// may exist, its cell may be down, its record may be archived, or this user may not
	// see it.
	Deleted(ctx context.Context, uuid string) (bool, error)

	// ComputeService returns the state of a host's nova-compute.
	ComputeService(ctx context.Context, host string) (ComputeService, error)

	// Lock locks an instance. Nova keeps the reason from microversion 2.73 on.
	// ErrNoInstance.
	Lock(ctx context.Context, uuid, reason string) error

	// KeepsReasons is true when Nova keeps the reason of a lock.
	KeepsReasons() bool

	// Unlock unlocks an instance. If it is not locked, that is success. ErrNoInstance.
	Unlock(ctx context.Context, uuid string) error

	// HardReboot requests a hard reboot once, and returns when Nova has accepted it.
	// ErrTaskUnderWay when Nova answers 409, ErrNoInstance. After ErrCloudUnavailable
	// Nova may have accepted it: the caller must read the state.
	HardReboot(ctx context.Context, uuid string) error

	// Pause pauses an instance, as its owner would. ErrTaskUnderWay, ErrNoInstance.
	Pause(ctx context.Context, uuid string) error

	// LastReboot returns the request ID of the instance's last reboot that Nova has on
	// record (os-instance-actions); empty when there is none.
	LastReboot(ctx context.Context, uuid string) (requestID string, err error)
}

// NovaParallel is how many instances are queried in Nova at a time, where each takes a
// few short requests.
const NovaParallel = 8

// IsRebooting is true while Nova reboots an instance, hard or soft
// (nova/compute/task_states.py: every such state begins with "reboot").
func IsRebooting(s Server) bool {
	return strings.HasPrefix(s.TaskState, "reboot")
}

// Deletion says that Nova has deleted an instance that it still shows, or is deleting it,
// and what takes that back; empty when it does neither. The states and tasks are those of
// nova/compute/vm_states.py and task_states.py.
func Deletion(s Server) string {
	switch {
	case s.VMState == VMSoftDeleted:
		return "it is SOFT_DELETED: its owner has deleted it, so what becomes of its files is no incident; " +
			"if that was a mistake: openstack server restore " + s.UUID
	case s.VMState == VMDeleted, s.TaskState == "deleting", s.TaskState == "soft-deleting":
		return "Nova is deleting it"
	}
	return ""
}
