package novalock

import (
	"context"
	"errors"
	"fmt"

	"github.com/os-rescue/os-rescue/recover"
)

// ErrCellDown: the instance's cell does not answer, so Nova knows nothing of the
// instance but its UUID. It wraps recover.ErrCloudUnavailable.
var ErrCellDown = fmt.Errorf("%w: its cell is down", recover.ErrCloudUnavailable)

// Read returns an instance as Nova has it now. recover.ErrNoInstance, ErrCellDown, and
// the other errors of Cloud.Server.
func Read(ctx context.Context, cloud recover.Cloud, uuid string) (recover.Server, error) {
	server, err := cloud.Server(ctx, uuid)
	if err == nil && server.Unknown {
		err = ErrCellDown
	}
	return server, err
}

// IsOwnProject is true when the credentials are of the instance's own project: then the
// lock would be its owner's, who can undo it.
func IsOwnProject(cloud recover.Cloud, server recover.Server) bool {
	own := cloud.OwnProject()
	return own != "" && own == server.ProjectID
}

// Lock locks an instance, whose state in Nova was just read, for a reason. If it is
// locked already, found is true, and that lock stays somebody else's.
//
// note is called with found before Nova is asked for the lock, to bring that to the
// disk: a process that dies in between knows its own lock again. If note fails,
// nothing is locked, and its error is returned as it is.
//
// Any other error is Nova's. MayBeLocked says whether the lock may have been made
// all the same.
func Lock(
	ctx context.Context, cloud recover.Cloud, server recover.Server, reason string, note func(found bool) error,
) (found bool, err error) {
	if err := note(server.Locked); err != nil || server.Locked {
		return server.Locked, err
	}
	return false, cloud.Lock(ctx, server.UUID, reason)
}

// MayBeLocked is true when Nova may have carried out a lock that ended with this
// error: the note of it must stay, so that it is undone one day.
func MayBeLocked(err error) bool { return errors.Is(err, recover.ErrCloudUnavailable) }

// Undone says how the undoing of a lock went.
type Undone struct {
	Theirs bool   // somebody else has locked the instance since: that lock stays
	Reason string // of their lock
}

// Unlock undoes a lock that was made for that reason, by which it is known again where
// Nova keeps reasons. That there is no lock, or no instance any more, is success.
// ErrCellDown, and the other errors of Cloud.Server and Cloud.Unlock.
func Unlock(ctx context.Context, cloud recover.Cloud, uuid, reason string) (Undone, error) {
	server, err := Read(ctx, cloud, uuid)
	switch {
	case errors.Is(err, recover.ErrNoInstance):
		return Undone{}, nil
	case err != nil:
		return Undone{}, err
	case !server.Locked:
		return Undone{}, nil
	case server.LockedReason != reason && cloud.KeepsReasons():
		return Undone{Theirs: true, Reason: server.LockedReason}, nil
	}
	if err := cloud.Unlock(ctx, uuid); err != nil && !errors.Is(err, recover.ErrNoInstance) {
		return Undone{}, err
	}
	return Undone{}, nil
}
