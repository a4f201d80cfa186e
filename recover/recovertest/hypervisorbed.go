package recovertest

import (
	"context"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// HypervisorBed gives TestHypervisor an implementation of recover.Hypervisor to look
// at, and guests. All of it ends with the test that asks for it, or with the suite's.
type HypervisorBed interface {
	// Open returns a further client of the hypervisor, which tries for that long when
	// the hypervisor can't be reached. It ends with the test.
	Open(t *testing.T, patience time.Duration) recover.Hypervisor

	// Guest makes a guest. One that runs has booted when Guest returns.
	Guest(t *testing.T, kind GuestKind) SuiteGuest

	// Ask has the guest write once to each of its disks, another content each time: soon
	// when it runs, else when it runs next. It waits for no write.
	Ask(t *testing.T, g SuiteGuest)

	// Frozen asks the guest whether its file systems are frozen.
	Frozen(t *testing.T, g SuiteGuest) bool

	// Undefine removes the definition of a domain that is off, as somebody else would.
	Undefine(t *testing.T, g SuiteGuest)

	// Within returns a context under which do is called once, in the middle of the next
	// call of that method: after it has begun, and before the hypervisor changes.
	Within(ctx context.Context, t *testing.T, method string, do func()) context.Context

	// Restart breaks every connection to the hypervisor, whose guests run on.
	Restart(t *testing.T)

	// Away is a hypervisor that can't be reached, until back is called.
	Away(t *testing.T) (back func())
}

// GuestKind says what a guest of the suite is like. All but KindAgent need no operating
// system.
type GuestKind string

// The kinds of guests.
const (
	// KindOff is a persistent domain that is off.
	KindOff GuestKind = "off"
	// KindRunning is a persistent domain that runs.
	KindRunning GuestKind = "running"
	// KindTransient runs, and has no definition.
	KindTransient GuestKind = "transient"
	// KindStuck was paused by its QEMU because a disk did not take a write.
	KindStuck GuestKind = "stuck"
	// KindAgent runs, and has an agent that answers.
	KindAgent GuestKind = "agent"
)

// SuiteGuest is a guest of a HypervisorBed. It has two disks that it writes: vda, which
// lies on a backing file, and vdb, which is raw, a file whose content is what the guest
// sees, and holds at least 512 KiB that are not zero. (A KindAgent and a KindStuck may
// have others.)
type SuiteGuest struct {
	UUID string // of its domain
	// Secret is a part of the definition that only XML tells.
	Secret string
}
