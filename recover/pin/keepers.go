package pin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// KeeperHold is one file that a keeper holds.
type KeeperHold struct {
	Key       string       `json:"key"`       // recover.Inode.Key
	Instances []string     `json:"instances"` // UUIDs of those that it is held for; empty when nobody can say
	Path      string       `json:"path"`      // where the file belongs
	Role      recover.Role `json:"role"`      // what it is to its instance
	Size      int64        `json:"size"`      // bytes
	Allocated int64        `json:"allocated"` // bytes on disk, holes not counted
	Since     time.Time    `json:"since"`     // when it was pinned
	PID       int          `json:"pid"`       // of the keeper
	PinnedBy  string       `json:"pinned_by"` // the name of the run that pinned it, or GuardRun; empty when nobody can say
	// Unclaimed is true when the state directory has no journal of that run.
	Unclaimed bool `json:"unclaimed,omitempty"`
}

// OtherKeeper is a keeper that a run neither asks nor takes over: one of another state
// directory, or one that does not answer.
type OtherKeeper struct {
	PID      int          `json:"pid"`
	StateDir string       `json:"state_dir"`        // that it was started for
	Own      bool         `json:"own,omitempty"`    // that is the one that was asked about
	Apart    bool         `json:"apart,omitempty"`  // no path leads to its socket
	Silent   bool         `json:"silent,omitempty"` // it is stopped, or hangs
	Holds    []KeeperHold `json:"holds"`            // of a silent one, as its descriptors tell
}

// KeeperStatus says whether a keeper runs, and what it holds.
type KeeperStatus struct {
	Running bool         `json:"running"`       // a keeper of this state directory runs, and answers
	PID     int          `json:"pid,omitempty"` // 0 when none does; one of them, when there are several
	Holds   []KeeperHold `json:"holds"`         // what they hold; never nil
	// Others are the host's other keepers, and those that do not answer.
	Others []OtherKeeper `json:"others,omitempty"`
}

// Keeper returns whether a keeper of that state directory runs, and what it holds, and the
// same of the host's other ones. That none runs is no error.
func Keeper(ctx context.Context, stateDir string) (KeeperStatus, error) {
	status := KeeperStatus{Holds: []KeeperHold{}}
	own, others, err := keeper.Around(ctx, stateDir)
	if err != nil {
		return status, err
	}
	defer keeper.CloseAll(own)
	defer keeper.CloseAll(others)
	for _, k := range own {
		if k.Client == nil {
			other := silentKeeper(ctx, stateDir, k)
			other.Own = true
			status.Others = append(status.Others, other)
			continue
		}
		holds, err := holdsOf(ctx, stateDir, k.Client)
		if errors.Is(err, keeper.ErrSilent) {
			k.Client.Close()
			k.Client = nil
			other := silentKeeper(ctx, stateDir, k)
			other.Own = true
			status.Others = append(status.Others, other)
			continue
		}
		if err != nil {
			return status, err
		}
		status.Running, status.PID = true, cmp.Or(status.PID, k.PID)
		status.Holds = append(status.Holds, holds...)
	}
	for _, k := range others {
		other := silentKeeper(ctx, stateDir, k)
		if k.Client != nil {
			if other.Holds, err = holdsOf(ctx, k.Dir, k.Client); err != nil {
				continue // it has ended
			}
			other.Silent = false
		}
		status.Others = append(status.Others, other)
	}
	return status, nil
}

// holdsOf returns what a keeper holds, in words of the state directory.
func holdsOf(ctx context.Context, stateDir string, c *keeper.Client) ([]KeeperHold, error) {
	list, err := c.List(ctx)
	if err != nil {
		return nil, err
	}
	holds := []KeeperHold{}
	for _, h := range list {
		meta, err := MetaOf(h)
		if err != nil {
			meta = Meta{Role: recover.RoleOther} // what it holds counts all the same
		}
		holds = append(holds, KeeperHold{
			Key:       h.Key,
			Instances: h.Owners,
			Path:      meta.Path,
			Role:      meta.Role,
			Size:      h.Size,
			Allocated: h.Allocated,
			Since:     h.Since,
			PID:       c.PID(),
			PinnedBy:  meta.Run,
			Unclaimed: meta.Run != GuardRun && !isRun(stateDir, meta.Run),
		})
	}
	return holds, nil
}

// isRun is true when the state directory has a run of that name.
func isRun(stateDir, name string) bool {
	if name == "" {
		return false
	}
	_, err := os.Lstat(statedir.Dir(stateDir).Run(name))
	return err == nil
}

// silentKeeper says of a keeper what can be seen from outside.
func silentKeeper(ctx context.Context, stateDir string, k keeper.Found) OtherKeeper {
	other := OtherKeeper{PID: k.PID, StateDir: k.Dir, Apart: k.Apart, Silent: true, Holds: []KeeperHold{}}
	if k.Client != nil {
		return other
	}
	seen, err := heldSilently(ctx, stateDir, k.PID)
	if err != nil {
		return other // it has ended
	}
	for _, h := range seen {
		other.Holds = append(other.Holds, KeeperHold{
			Key:       h.Inode().Key(),
			Instances: append([]string{}, h.Owners...),
			Path:      h.Meta.Path,
			Role:      h.Meta.Role,
			Size:      h.Stat.Size,
			Allocated: h.Stat.Blocks * 512,
			PID:       k.PID,
			PinnedBy:  h.Meta.Run,
			Unclaimed: h.Meta.Run == "",
		})
	}
	return other
}

// ofKeepers returns what the keepers of a state directory hold. Of one that does not answer it
// is what its descriptors and the journals tell.
func ofKeepers(ctx context.Context, stateDir string) ([]Held, error) {
	keepers, err := keeper.Of(ctx, stateDir)
	if err != nil {
		return nil, fmt.Errorf("ask the keeper what it holds: %w", err)
	}
	defer keeper.CloseAll(keepers)
	var pins []Held
	for _, k := range keepers {
		var held []Held
		unproven := 0
		if k.Client != nil {
			held, unproven, err = pinsOf(ctx, k.Client, keeperName)
		}
		if unproven > 0 {
			zerolog.Ctx(ctx).Warn().Int("keeper", k.PID).Int("files", unproven).
				Msg("the keeper says that it holds files which it does not have open, or of which it has no record that can be read; " +
					"what it has open counts")
		}
		if k.Client == nil || errors.Is(err, keeper.ErrSilent) {
			held, err = heldSilently(ctx, stateDir, k.PID)
			held = slices.DeleteFunc(held, func(h Held) bool { return len(h.Owners) == 0 }) // whose it is, nobody can say
		}
		if err != nil {
			return nil, err
		}
		pins = append(pins, held...)
	}
	return pins, nil
}
