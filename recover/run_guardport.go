package recover

import (
	"context"
)

// Guard returns what the guard of this host knows, as AskGuard does.
func (e *Engine) Guard(ctx context.Context) (GuardStatus, error) {
	return AskGuard(ctx, e.Settings.StateDir)
}

// GuardRelease lets an instance's deleted files go, as ReleaseByHand does.
func (e *Engine) GuardRelease(ctx context.Context, uuid string) error {
	return ReleaseByHand(ctx, e.Settings.StateDir, uuid)
}

// Check reports this host's health.
func (e *Engine) Check(ctx context.Context, o CheckOptions, scan func(context.Context) (Report, error)) (CheckReport, error) {
	return Check(ctx, hostSources(e.Settings, scan), o)
}
