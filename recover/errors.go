package recover

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers test for with errors.Is.
var (
	// ErrUsage: the request contradicts itself or names nothing.
	ErrUsage = errors.New("bad usage")
	// ErrUnusable: os-rescue can't work on this host as it is (no permission, no
	// hypervisor, a user in the table of owners that does not exist).
	ErrUnusable = errors.New("the environment is unusable")
	// ErrBusy: another run is under way on this host.
	ErrBusy = errors.New("another run is under way")
	// ErrNothingSelected: no instance matches the selection, or not all that it names.
	ErrNothingSelected = errors.New("no instance matches")
	// ErrNoSpace: a file system has no room for the copies and its headroom.
	ErrNoSpace = errors.New("not enough space")
	// ErrConflict: something else exists at the path where a file belongs.
	ErrConflict = errors.New("something else stands at the path")
	// ErrRefused: the instance is in a state in which os-rescue leaves it alone.
	ErrRefused = errors.New("refused")
	// ErrOlder: the guest may have written after the backup was taken.
	ErrOlder = errors.New("the backup may be older than the guest's data")
	// ErrUnproven: a copy could not be proven to be what the guest's QEMU wrote.
	ErrUnproven = errors.New("the copy is not proven")
	// ErrCorrupt: the image itself is damaged. Its guest is not destroyed.
	ErrCorrupt = errors.New("the image is corrupt")
	// ErrLastCopy: nobody else has what is to be let go.
	ErrLastCopy = errors.New("the last copy is kept")
	// ErrDeleted: Nova has deleted the instance, or is deleting it. Its files are not put
	// back.
	ErrDeleted = errors.New("it is deleted in Nova")
	// ErrNoRun: there is no run of that name, or none to resume.
	ErrNoRun = errors.New("no such run")
)

// Refusal is an ErrRefused with a text of its own.
type Refusal string

// Error returns the text, which does not repeat that of ErrRefused.
func (r Refusal) Error() string { return string(r) }

// Unwrap makes errors.Is(err, ErrRefused) true.
func (Refusal) Unwrap() error { return ErrRefused }

// InstanceError says what happened to an instance, what is safe, and what to do next. It
// wraps the cause.
type InstanceError struct {
	UUID   string // of the instance
	Domain string // the name of its libvirt domain
	Safe   string // what is safe, in one sentence; may be empty
	Next   string // what to do next, in one sentence; may be empty
	Err    error  // the cause
}

// Error returns all of it in one line, beginning with the instance.
func (e *InstanceError) Error() string {
	return fmt.Sprintf("%s (%s): %s", e.Domain, e.UUID, e.Message())
}

// Message returns the text of Error without the instance, for a place that names it.
func (e *InstanceError) Message() string {
	var b strings.Builder
	b.WriteString(InWords(e.Err.Error()))
	for _, s := range []string{e.Safe, e.Next} {
		if s != "" {
			fmt.Fprintf(&b, ". %s", strings.TrimSuffix(InWords(s), "."))
		}
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *InstanceError) Unwrap() error { return e.Err }
