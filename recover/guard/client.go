package guard

import (
	"context"
	"errors"
	"fmt"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// Ask returns what the guard of a state directory knows, from its last scan and what it
// has noticed since: it is not made to scan. That no guard runs is no error: Running is
// false then. One that does not answer, or not as a guard does, or hangs up while it lives, is an
// error after some seconds.
func Ask(ctx context.Context, stateDir string) (Status, error) {
	var status Status
	err := keeper.AskGuard(ctx, stateDir, func(c *keeper.Client) error {
		parts, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if status, err = joinStatus(parts); err != nil {
			return fmt.Errorf("the guard's answer: %w", err)
		}
		status.Running, status.PID = true, c.PID()
		return nil
	})
	if errors.Is(err, keeper.ErrNoKeeper) {
		return Status{}, nil
	}
	if err != nil {
		return Status{}, err
	}
	return status, nil
}

// ReleaseByHand has the guard of a state directory let go of the deleted files that it
// holds for an instance, because an operator says that they are not needed. Their data is
// gone then, unless another process has them open. recover.ErrUnusable when no guard runs.
func ReleaseByHand(ctx context.Context, stateDir, uuid string) error {
	c, err := keeper.ConnectGuard(ctx, stateDir)
	if err != nil {
		return fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer c.Close()
	return c.ReleaseFor(ctx, keeper.ReleasedByHand, uuid)
}
