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
	// ErrUnusable: this host is not in a state to work on (no permission, no
	// hypervisor, a user of the owner table missing).
	ErrUnusable = errors.New("the environment is unusable")
	// ErrBusy: another run is under way on this host.
	ErrBusy = errors.New("another run is under way")
	// ErrNothingSelected: no instance of this host matches the selection.
	ErrNothingSelected = errors.New("no instance matches")
	// ErrNoSpace: a file system lacks room for the copies and its headroom.
	ErrNoSpace = errors.New("not enough space")
	// ErrConflict: something else stands where a file belongs.
	ErrConflict = errors.New("something else stands at the path")
	// ErrRefused: the instance is in a state in which os-rescue keeps its hands off.
	ErrRefused = errors.New("refused")
	// ErrOlder: the guest may have written after the backup was taken.
	ErrOlder = errors.New("the backup may be older than the guest's data")
	// ErrUnproven: a copy is not what the guest's QEMU wrote.
	ErrUnproven = errors.New("the copy is not proven")
	// ErrCorrupt: the image is damaged in itself; its guest is not destroyed.
	ErrCorrupt = errors.New("the image is corrupt")
	// ErrNoRun: no run of that name, or none to resume.
	ErrNoRun = errors.New("no such run")
)

// refusal is ErrRefused in words of its own.
type refusal string

func (r refusal) Error() string { return string(r) }

// Unwrap makes errors.Is(err, ErrRefused) true.
func (refusal) Unwrap() error { return ErrRefused }

// InstanceError is what happened to an instance, what of it is safe, and what
// to do next. It wraps the cause.
type InstanceError struct {
	UUID   string
	Domain string
	Safe   string // one sentence
	Next   string // one sentence
	Err    error
}

// Error returns all of it in one line, the instance first.
func (e *InstanceError) Error() string {
	return fmt.Sprintf("%s (%s): %s", e.Domain, e.UUID, e.Message())
}

// Message is Error without the instance, for where that is said already.
func (e *InstanceError) Message() string {
	var b strings.Builder
	b.WriteString(e.Err.Error())
	for _, s := range []string{e.Safe, e.Next} {
		if s != "" {
			fmt.Fprintf(&b, ". %s", strings.TrimSuffix(s, "."))
		}
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *InstanceError) Unwrap() error { return e.Err }
