//go:build failpoint

package main

import (
	"context"
	"fmt"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/failpoint"
	"github.com/os-rescue/os-rescue/recover"
)

// failpoints returns what makes a run fail where OS_RESCUE_FAILPOINT says. ctx
// is the run's: a signal that the process sends itself is waited for there.
func failpoints(ctx context.Context, env map[string]string) (func(point string), error) {
	spec := env["OS_RESCUE_FAILPOINT"]
	if spec == "" {
		return nil, nil
	}
	set, err := failpoint.Parse(spec)
	if err != nil {
		return nil, fmt.Errorf("%w: OS_RESCUE_FAILPOINT: %w", recover.ErrUsage, err)
	}
	return func(point string) { set.Hit(ctx, point) }, nil
}

// undoCommand is none where OS_RESCUE_WITNESS says so: a test kills a run together
// with the process that would undo it.
func undoCommand(env map[string]string, command []string) []string {
	if env["OS_RESCUE_WITNESS"] == "none" {
		return nil
	}
	return command
}
