package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/os-rescue/os-rescue/recover"
)

// Final is an error after which a resume can do nothing more for the instance: its run
// ends there.
type Final struct {
	Err  error
	Next string // what the operator can do instead, in one sentence; may be empty
}

// Error returns the text of the cause.
func (f *Final) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Final) Unwrap() error { return f.Err }

// NotDeleted returns recover.ErrDeleted when Nova says that the instance is deleted, or is
// deleting it; nil when it is not, when Nova does not answer, and offline. Only Nova's word
// ends a rescue.
func NotDeleted(ctx context.Context, t *Task) error {
	if t.Run.Cloud == nil || t.Plan.Server == nil {
		return nil
	}
	return Deleted(t.Run.Cloud.Server(ctx, t.Plan.UUID))
}

// Deleted returns recover.ErrDeleted when that answer of Cloud.Server says that the instance
// is deleted, or is being deleted; nil for any other answer.
func Deleted(server recover.Server, err error) error {
	if errors.Is(err, recover.ErrNoInstance) {
		return fmt.Errorf("%w since the run began: %w", recover.ErrDeleted, err)
	}
	if why := recover.Deletion(server); err == nil && why != "" {
		return fmt.Errorf("%w: %s", recover.ErrDeleted, why)
	}
	return nil
}

// LetGo is the command that lets everything go that the run still holds of an instance
// that nobody needs any more.
func LetGo(run string) string {
	return "os-rescue resume --abandon " + run + " --release --accept-loss last-copy"
}
