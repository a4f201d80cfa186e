package novalock

import (
	"context"
	"errors"
	"fmt"

	"github.com/os-rescue/os-rescue/recover"
)

// ErrCellDown: the instance's cell does not answer, so Nova knows nothing of the
// instance but its UUID.
var ErrCellDown = fmt.Errorf("%w: its cell is down", recover.ErrCloudUnavailable)

// Read returns an instance as Nova has it now. ErrNoInstance, errCellDown, and
// what Cloud.Server returns.
func Read(ctx context.Context, cloud recover.Cloud, uuid string) (recover.Server, error) {
	server, err := cloud.Server(ctx, uuid)
	if err == nil && server.Unknown {
		err = ErrCellDown
	}
	return server, err
}

// IsOwnProject is true when the credentials are of the instance's own project: with
// those a lock is its owner's, who can undo it.
func IsOwnProject(cloud recover.Cloud, server recover.Server) bool {
	own := cloud.OwnProject()
	return own != "" && own == server.ProjectID
}

// Lock locks an instance for a reason, unless it is locked already: then
// found is true, and that lock stays somebody else's. server is what Nova has just
// said of it.
//
// note is called with found before Nova is asked for the lock, to bring that to the
// disk: a process that dies in between knows its own lock again. If note fails,
// nothing is locked, and its error is returned as it is.
//
// Any other error is Nova's. mayBeLocked says whether the lock may have been made
// all the same.
func Lock(ctx context.Context, cloud recover.Cloud, server recover.Server, reason string, note func(found bool) error) (found bool, err error) {
	if err := note(server.Locked); err != nil || server.Locked {
		return server.Locked, err
	}
	return false, cloud.Lock(ctx, server.UUID, reason)
}

// MayBeLocked is true when Nova may have carried out a lock that ended with this
// error: the note of it must stay, so that it is undone one day.
func MayBeLocked(err error) bool { return errors.Is(err, recover.ErrCloudUnavailable) }

// unlocking says how the undoing of a lock went.
type unlocking struct {
	Theirs bool   // somebody else has locked the instance since: that lock stays
	Reason string // of their lock
}

// Unlock undoes a lock of one's own, which is known by its reason where Nova
// keeps reasons. That there is no lock, or no instance any more, is success.
// errCellDown and what Cloud.Server and Cloud.Unlock return.
func Unlock(ctx context.Context, cloud recover.Cloud, uuid, reason string) (unlocking, error) {
	server, err := Read(ctx, cloud, uuid)
	switch {
	case errors.Is(err, recover.ErrNoInstance):
		return unlocking{}, nil
	case err != nil:
		return unlocking{}, err
	case !server.Locked:
		return unlocking{}, nil
	case server.LockedReason != reason && cloud.KeepsReasons():
		return unlocking{Theirs: true, Reason: server.LockedReason}, nil
	}
	if err := cloud.Unlock(ctx, uuid); err != nil && !errors.Is(err, recover.ErrNoInstance) {
		return unlocking{}, err
	}
	return unlocking{}, nil
}
