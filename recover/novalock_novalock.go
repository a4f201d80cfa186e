package recover

import (
	"context"
	"errors"
	"fmt"
)

// errCellDown: the instance's cell does not answer, so Nova knows nothing of the
// instance but its UUID.
var errCellDown = fmt.Errorf("%w: its cell is down", ErrCloudUnavailable)

// readServer returns an instance as Nova has it now. ErrNoInstance, errCellDown, and
// what Cloud.Server returns.
func readServer(ctx context.Context, cloud Cloud, uuid string) (Server, error) {
	server, err := cloud.Server(ctx, uuid)
	if err == nil && server.Unknown {
		err = errCellDown
	}
	return server, err
}

// isOwnProject is true when the credentials are of the instance's own project: with
// those a lock is its owner's, who can undo it.
func isOwnProject(cloud Cloud, server Server) bool {
	own := cloud.OwnProject()
	return own != "" && own == server.ProjectID
}

// lockServer locks an instance for a reason, unless it is locked already: then
// found is true, and that lock stays somebody else's. server is what Nova has just
// said of it.
//
// note is called with found before Nova is asked for the lock, to bring that to the
// disk: a process that dies in between knows its own lock again. If note fails,
// nothing is locked, and its error is returned as it is.
//
// Any other error is Nova's. mayBeLocked says whether the lock may have been made
// all the same.
func lockServer(ctx context.Context, cloud Cloud, server Server, reason string, note func(found bool) error) (found bool, err error) {
	if err := note(server.Locked); err != nil || server.Locked {
		return server.Locked, err
	}
	return false, cloud.Lock(ctx, server.UUID, reason)
}

// mayBeLocked is true when Nova may have carried out a lock that ended with this
// error: the note of it must stay, so that it is undone one day.
func mayBeLocked(err error) bool { return errors.Is(err, ErrCloudUnavailable) }

// unlocking says how the undoing of a lock went.
type unlocking struct {
	Theirs bool   // somebody else has locked the instance since: that lock stays
	Reason string // of their lock
}

// unlockServer undoes a lock of one's own, which is known by its reason where Nova
// keeps reasons. That there is no lock, or no instance any more, is success.
// errCellDown and what Cloud.Server and Cloud.Unlock return.
func unlockServer(ctx context.Context, cloud Cloud, uuid, reason string) (unlocking, error) {
	server, err := readServer(ctx, cloud, uuid)
	switch {
	case errors.Is(err, ErrNoInstance):
		return unlocking{}, nil
	case err != nil:
		return unlocking{}, err
	case !server.Locked:
		return unlocking{}, nil
	case server.LockedReason != reason && cloud.KeepsReasons():
		return unlocking{Theirs: true, Reason: server.LockedReason}, nil
	}
	if err := cloud.Unlock(ctx, uuid); err != nil && !errors.Is(err, ErrNoInstance) {
		return unlocking{}, err
	}
	return unlocking{}, nil
}
