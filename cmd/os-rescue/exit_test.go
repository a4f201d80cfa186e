package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
)

func TestEveryKindOfErrorHasItsExitCodeAndNoneIsZero(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errUnrescued, 1}, {errUnknown, 1}, {errDeclined, 1},
		{levelError(check.Warning), 1}, {levelError(check.Critical), 2}, {levelError(check.Unknown), 3},
		{recover.ErrNoSpace, 1}, {recover.ErrConflict, 1}, {recover.ErrRefused, 1}, {recover.ErrOlder, 1}, {recover.ErrUnproven, 1},
		{errors.New("anything else"), 1},
		{recover.ErrUsage, 2}, {recover.ErrNothingSelected, 2}, {recover.ErrNoRun, 2}, {config.ErrInvalid, 2}, {errNoConsent, 2},
		{recover.ErrNoProject, 2}, {recover.ErrAmbiguous, 2}, {recover.ErrNoInstance, 2},
		{usageError{errors.New("unknown flag")}, 2},
		{recover.ErrUnusable, 3}, {recover.ErrBusy, 3}, {recover.ErrUnavailable, 3}, {errNotRoot, 3}, {errOutput, 3}, {fs.ErrPermission, 3},
		{recover.ErrCloudUnavailable, 3}, {recover.ErrCredentials, 3}, {recover.ErrForbidden, 3}, {nova.ErrTooOld, 3},
		{errInterrupted, 130}, {context.Canceled, 130}, {stoppedBy{"SIGTERM"}, 130},
		{errors.Join(errInterrupted, recover.ErrUnusable), 130},
		{errors.Join(errUnrescued, context.Canceled), 130},
		{errors.Join(recover.ErrRefused, errOutput), 1},
		{errors.Join(errOutput, errUnrescued), 1},
		{errors.Join(recover.ErrUnusable, errNoConsent), 2},
		{&recover.InstanceError{Domain: "d", Err: recover.ErrUnproven}, 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit %d, want %d", c.err, got, c.want)
		}
		if c.err == nil {
			continue
		}
		if got := exitCode(fmt.Errorf("scanning: %w", c.err)); got != c.want {
			t.Errorf("%v, wrapped: exit %d, want %d", c.err, got, c.want)
		}
	}
}
