package recover

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Errors that an implementation of Cloud returns, for errors.Is.
var (
	// ErrNoInstance: Nova says that there is no such instance (any more). Never
	// returned for an instance that Nova can't see because its cell is down.
	ErrNoInstance = errors.New("Nova knows no such instance") //nolint:staticcheck // a name
	// ErrCloudUnavailable: Nova or Keystone can't be reached or is broken (5xx,
	// no connection), and trying again did not help.
	ErrCloudUnavailable = errors.New("the OpenStack API does not answer")
	// ErrCredentials: no credentials were found, or they are not accepted.
	ErrCredentials = errors.New("can't sign in to OpenStack")
	// ErrForbidden: the signed-in user has no right to do this; the text names
	// the policy and the role that usually has it.
	ErrForbidden = errors.New("the OpenStack user has no right to do this")
	// ErrTaskUnderWay: Nova answers 409 because a task or the instance's state
	// does not allow this now.
	ErrTaskUnderWay = errors.New("Nova does not allow it now") //nolint:staticcheck // a name
	// ErrAmbiguous: several projects have the name that was given.
	ErrAmbiguous = errors.New("the name is ambiguous")
	// ErrNoProject: Keystone knows no project of that name or ID.
	ErrNoProject = errors.New("no such project")
)

// The values of vm_state that os-rescue tells apart (nova/compute/vm_states.py).
const (
	VMActive    = "active"
	VMPaused    = "paused"
	VMStopped   = "stopped"
	VMSuspended = "suspended"
	VMRescued   = "rescued"
	VMResized   = "resized" // status VERIFY_RESIZE
	VMError     = "error"
	VMShelved   = "shelved"
	// VMDeleted is a deletion's last moment: no task any more, and the record is
	// still there (nova/compute/manager.py, _delete_instance and _complete_deletion).
	VMDeleted = "deleted"
	// VMShelvedOffloaded has a host for a moment more, and no task (_shelve_offload_instance).
	VMShelvedOffloaded = "shelved_offloaded"
)

// Server is an instance as Nova sees it.
type Server struct {
	UUID      string `json:"uuid"`
	Name      string `json:"name"`
	ProjectID string `json:"project_id"`
	// Host is the compute service that has it (OS-EXT-SRV-ATTR:host); empty
	// for one that no host has.
	Host string `json:"host"`
	// Domain is the libvirt name (OS-EXT-SRV-ATTR:instance_name).
	Domain string `json:"domain"`
	Status string `json:"status"` // ACTIVE, SHUTOFF, ERROR, VERIFY_RESIZE, ...
	// VMState is lower case, TaskState empty when no task is under way.
	VMState   string `json:"vm_state"`
	TaskState string `json:"task_state,omitempty"`
	// PowerState is Nova's number: 1 running, 3 paused, 4 shut down
	// (nova/compute/power_state.py).
	PowerState int  `json:"power_state"`
	Locked     bool `json:"locked"`
	// LockedReason is empty before microversion 2.73.
	LockedReason string `json:"locked_reason,omitempty"`
	// Fault is the message of the last fault of an instance in ERROR.
	Fault string `json:"fault,omitempty"`
	// Unknown is true when the instance's cell does not answer: everything but
	// UUID (and perhaps ProjectID) is unknown then. It is not deleted.
	Unknown bool `json:"unknown,omitempty"`
}

// ServerFilter says which instances are listed; empty fields do not filter.
type ServerFilter struct {
	ProjectID string
	Hosts     []string // any of them
}

// ComputeService is the state of the nova-compute of a host.
type ComputeService struct {
	Known          bool // false when Nova has no nova-compute of that host
	Up             bool
	Disabled       bool
	DisabledReason string
	UpdatedAt      time.Time
}

// Cloud is what package recover needs of Keystone and Nova. It must be safe for
// concurrent use. Each method tries again by itself, within limits, after what
// is likely to pass (5xx, a broken connection, 429), and renews its token when
// that has run out; it never repeats a request that may have been accepted and
// must not be carried out twice, without a look first.
//
// Every method may return ErrCloudUnavailable, ErrForbidden, ErrCredentials, or
// the context's error.
type Cloud interface {
	// Project returns the ID of the project of that name or ID; domain, a name
	// or ID of a Keystone domain, may be empty. ErrNoProject, ErrAmbiguous, and
	// ErrForbidden when the user may not look projects up.
	Project(ctx context.Context, nameOrID, domain string) (id string, err error)

	// OwnProject is the ID of the project that the token is scoped to; empty
	// for a token of another scope.
	OwnProject() string

	// Servers returns every instance of every project that the filter lets
	// through: every page, deleted ones left out, those of cells that are down
	// with Unknown set.
	Servers(ctx context.Context, filter ServerFilter) ([]Server, error)

	// Server returns one instance, as it is now. ErrNoInstance.
	Server(ctx context.Context, uuid string) (Server, error)

	// Deleted is true when Nova itself has the instance among the deleted ones. false
	// says nothing: it may exist, its cell may be down, it may have been archived
	// since, or not be shown to this user.
	Deleted(ctx context.Context, uuid string) (bool, error)

	// ComputeService says how the nova-compute of a host is.
	ComputeService(ctx context.Context, host string) (ComputeService, error)

	// Lock locks an instance. The reason is kept where Nova keeps reasons (2.73+).
	// ErrNoInstance.
	Lock(ctx context.Context, uuid, reason string) error

	// KeepsReasons is true when the reason of a lock can be read again.
	KeepsReasons() bool

	// Unlock unlocks an instance; not locked is success. ErrNoInstance.
	Unlock(ctx context.Context, uuid string) error

	// HardReboot asks once for a hard reboot and returns when it is accepted.
	// ErrTaskUnderWay when Nova answers 409, ErrNoInstance. After
	// ErrCloudUnavailable the request may have been accepted: the caller looks.
	HardReboot(ctx context.Context, uuid string) error

	// Pause pauses an instance, as its owner would. ErrTaskUnderWay, ErrNoInstance.
	Pause(ctx context.Context, uuid string) error

	// LastReboot returns the request ID of the newest reboot of the instance that
	// Nova has on record (os-instance-actions), empty when there is none.
	LastReboot(ctx context.Context, uuid string) (requestID string, err error)
}

// novaParallel is how many instances Nova is asked about at a time, where each
// takes but a few short requests.
const novaParallel = 8

// rebooting is true while Nova reboots an instance (nova/compute/task_states.py).
func rebooting(s Server) bool {
	return strings.HasPrefix(s.TaskState, "reboot")
}
