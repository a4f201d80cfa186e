package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
)

// The exit codes, which scripts depend on.
const (
	exitOK          = 0   // all done, or nothing to do
	exitUnrescued   = 1   // some instances were not rescued; their data is safe
	exitUsage       = 2   // bad usage or configuration
	exitUnusable    = 3   // the environment is unusable
	exitInterrupted = 130 // interrupted and rolled back
)

// exitError is an error of a command that carries its exit code.
type exitError struct {
	code int
	text string
	told bool // the output has already said it
}

func (e *exitError) Error() string { return e.text }

// Is makes the error match its exit code.
func (e *exitError) Is(target error) bool { return target == withCode(e.code) }

// withCode is a target of errors.Is: it matches every exitError with this code.
type withCode int

func (c withCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

var (
	// errUnrescued: the report of the run says which instances, and why.
	errUnrescued = &exitError{code: exitUnrescued, text: "not every instance was rescued", told: true}
	// errUnknown: the scan could not examine every instance.
	errUnknown = &exitError{code: exitUnrescued, text: "not every instance could be examined", told: true}
	// errDamaged: the output says which files of the backup.
	errDamaged = &exitError{code: exitUnrescued, text: "the backup is not whole", told: true}
	// errInterrupted: a signal stopped the run.
	errInterrupted = &exitError{code: exitInterrupted, text: "interrupted", told: true}
	// errDeclined: the operator was asked and did not answer yes.
	errDeclined = &exitError{code: exitUnrescued, text: "not confirmed: nothing was changed"}
	// errNoConsent: there is nobody to ask.
	errNoConsent = &exitError{code: exitUsage, text: "this needs consent"}
	// errNotRoot: only root can read what other users' processes hold.
	errNotRoot = &exitError{code: exitUnusable, text: "this needs root: it reads other users' open files and gives files to other users"}
	// errOutput: the results could not be written.
	errOutput = &exitError{code: exitUnusable, text: "can't write the results"}
)

// exitCode returns the exit code of the process. An error is never 0. Of several
// joined errors the first code in this order counts.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	for _, code := range []int{exitInterrupted, exitUsage, exitUnrescued, exitUnusable} {
		for _, target := range append(kinds(code), withCode(code)) {
			if errors.Is(err, target) {
				return code
			}
		}
	}
	return exitUnrescued
}

// kinds returns the errors of other packages that end the process with this exit
// code.
func kinds(code int) []error {
	switch code {
	case exitInterrupted:
		return []error{context.Canceled}
	case exitUsage:
		return []error{
			recover.ErrUsage, recover.ErrNothingSelected, recover.ErrNoProject, recover.ErrAmbiguous, recover.ErrNoInstance, recover.ErrNoRun,
			config.ErrInvalid,
		}
	case exitUnrescued:
		return []error{recover.ErrNoSpace, recover.ErrConflict, recover.ErrRefused, recover.ErrOlder, recover.ErrUnproven, recover.ErrLastCopy}
	case exitUnusable:
		return []error{
			recover.ErrUnusable, recover.ErrBusy, recover.ErrUnavailable, recover.ErrCloudUnavailable, recover.ErrCredentials, recover.ErrForbidden,
			nova.ErrTooOld, fs.ErrPermission,
		}
	}
	return nil
}

// told is true for an error that the output has already said.
func told(err error) bool {
	own, ok := err.(*exitError) //nolint:errorlint // wrapped, it says more
	return ok && own.told
}
