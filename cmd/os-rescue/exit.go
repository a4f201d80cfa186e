package main

import (
	"context"
	"errors"
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

var (
	// errUnrescued: the run's report, which was written, says which and why.
	errUnrescued = errors.New("not every instance was rescued")
	// errUnknown: the scan could not look at every instance.
	errUnknown = errors.New("not every instance could be looked at")
	// errInterrupted: the run was stopped by a signal.
	errInterrupted = errors.New("interrupted")
	// errDeclined: the operator was asked, and did not say yes.
	errDeclined = errors.New("not confirmed: nothing was changed")
	// errNoConsent: there is nobody to ask.
	errNoConsent = errors.New("this needs consent")
	// errNotRoot: only root can read what other users' processes hold.
	errNotRoot = errors.New("this needs root: it reads other users' open files and gives files to other users")
	// errOutput: the results could not be written.
	errOutput = errors.New("can't write the results")
)

// exitCode is what the process ends with. An error is never 0.
func exitCode(err error) int {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return exitOK
	case is(errInterrupted, context.Canceled):
		return exitInterrupted
	case is(recover.ErrUsage, recover.ErrNothingSelected, recover.ErrNoProject, recover.ErrAmbiguous, recover.ErrNoInstance, recover.ErrNoRun, config.ErrInvalid, errNoConsent):
		return exitUsage
	case is(errUnrescued, errUnknown, errDeclined, recover.ErrNoSpace, recover.ErrConflict, recover.ErrRefused, recover.ErrOlder, recover.ErrUnproven):
		return exitUnrescued
	case is(recover.ErrUnusable, recover.ErrBusy, recover.ErrUnavailable, recover.ErrCloudUnavailable, recover.ErrCredentials, recover.ErrForbidden, nova.ErrTooOld, errNotRoot, errOutput, fs.ErrPermission):
		return exitUnusable
	default:
		return exitUnrescued
	}
}

// told is true for an error that the results have spelled out already.
func told(err error) bool {
	return err == errUnrescued || err == errUnknown || err == errInterrupted //nolint:errorlint // wrapped, it says more
}
