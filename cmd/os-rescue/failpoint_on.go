//go:build failpoint

package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/failpoint"
	"github.com/os-rescue/os-rescue/recover"
)

// failpoints returns a function that makes a run fail where OS_RESCUE_FAILPOINT
// says. ctx is the run's: it ends when the process has sent itself a signal.
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

// runDir is OS_RESCUE_RUN_DIR where that is set: then a test can have two hosts on one.
func runDir(env map[string]string, dir string) string { return cmp.Or(env["OS_RESCUE_RUN_DIR"], dir) }

// undoCommand returns nil if OS_RESCUE_WITNESS is "none": then a test can kill a run
// that no process undoes.
func undoCommand(env map[string]string, command []string) []string {
	if env["OS_RESCUE_WITNESS"] == "none" {
		return nil
	}
	return command
}
