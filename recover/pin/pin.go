package pin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Meta is what the holder of a pin keeps beside it: enough to rescue the file after
// its QEMU and the run that pinned it have both ended.
type Meta struct {
	Path    string       `json:"path"`              // where the file belongs
	Role    recover.Role `json:"role"`              // what it is to its instance
	Format  string       `json:"format,omitempty"`  // from libvirt, never probed
	Target  string       `json:"target,omitempty"`  // the disk it belongs to: vda
	Backing string       `json:"backing,omitempty"` // the path of its backing file
	Run     string       `json:"run"`               // the name of the run that pinned it, or GuardRun
	// Needed is set by the guard: an existing instance has lost this file.
	Needed bool `json:"needed,omitempty"`
}

// MetaOf returns the Meta of a pin of the keeper's or the guard's. The error is that of a
// record that is no Meta.
func MetaOf(h keeper.Hold) (meta Meta, err error) {
	err = json.Unmarshal(h.Meta, &meta)
	return meta, err
}

// Held is a file that the keeper or the guard holds, with its open descriptor.
type Held struct {
	procfs.HeldFile
	Owners []string // UUIDs of the instances that it is held for; empty when that is not known yet
	Meta   Meta     // what was noted when it was pinned
}

// KeeperHold is one file that the keeper holds.
type KeeperHold struct {
	Key       string       `json:"key"`       // recover.Inode.Key
	Instances []string     `json:"instances"` // UUIDs of those that it is held for
	Path      string       `json:"path"`      // where the file belongs
	Role      recover.Role `json:"role"`      // what it is to its instance
	Size      int64        `json:"size"`      // bytes
	Allocated int64        `json:"allocated"` // bytes on disk, holes not counted
	Since     time.Time    `json:"since"`     // when it was pinned
}

// KeeperStatus says whether a keeper runs, and what it holds.
type KeeperStatus struct {
	Running bool         `json:"running"`       // a keeper runs
	PID     int          `json:"pid,omitempty"` // 0 when none runs
	Holds   []KeeperHold `json:"holds"`         // never nil
}

// Keeper returns whether the keeper of the host runs, and what it holds. That none runs is
// no error; that one runs and does not answer is.
func Keeper(ctx context.Context, stateDir string) (KeeperStatus, error) {
	status := KeeperStatus{Holds: []KeeperHold{}}
	c, err := keeper.Connect(ctx, stateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return status, nil
	}
	if err != nil {
		return status, err
	}
	defer c.Close()
	holds, err := c.List(ctx)
	if err != nil {
		return status, err
	}
	status.Running, status.PID = true, c.PID()
	for _, h := range holds {
		meta, err := MetaOf(h)
		if err != nil {
			return status, fmt.Errorf("the keeper's record of %s: %w", h.Key, err)
		}
		status.Holds = append(status.Holds, KeeperHold{
			Key:       h.Key,
			Instances: h.Owners,
			Path:      meta.Path,
			Role:      meta.Role,
			Size:      h.Size,
			Allocated: h.Allocated,
			Since:     h.Since,
		})
	}
	return status, nil
}

// Lister returns a function that lists what the keeper and the guard of a host hold. A
// guard itself gives own, which lists its pins; everybody else gives nil, and the guard is
// asked, if one runs. That a keeper or a guard does not run is no error.
func Lister(stateDir string, own func() ([]Held, error)) func(ctx context.Context) ([]Held, error) {
	if own == nil {
		return func(ctx context.Context) ([]Held, error) { return ofHost(ctx, stateDir) }
	}
	return func(ctx context.Context) ([]Held, error) {
		pins, err := ofKeeper(ctx, stateDir)
		if err != nil {
			return nil, err
		}
		more, err := own()
		return append(pins, more...), err
	}
}

// ofHost returns what the keeper and the guard of this host hold. That one of them
// does not run is no error.
func ofHost(ctx context.Context, stateDir string) ([]Held, error) {
	pins, err := ofKeeper(ctx, stateDir)
	if err != nil {
		return nil, err
	}
	more, err := pinsBehind(ctx, stateDir, "guard", keeper.ConnectGuard)
	return append(pins, more...), err
}

// ofKeeper returns what the keeper of this host holds. That none runs is no error.
func ofKeeper(ctx context.Context, stateDir string) ([]Held, error) {
	return pinsBehind(ctx, stateDir, "keeper", keeper.Connect)
}

// pinsBehind returns what the process behind a socket holds. That none runs is no error.
func pinsBehind(
	ctx context.Context, stateDir, who string, connect func(context.Context, string) (*keeper.Client, error),
) ([]Held, error) {
	c, err := connect(ctx, stateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the %s what it holds: %w", who, err)
	}
	defer c.Close()
	holds, err := c.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the %s what it holds: %w", who, err)
	}
	held, err := procfs.HeldBy(ctx, c.PID())
	if err != nil {
		return nil, fmt.Errorf("list the open files of the %s: %w", who, err)
	}
	byKey := map[string]procfs.HeldFile{}
	for _, h := range held {
		byKey[h.Inode().Unborn().Key()] = h // of a keeper of a release that knew no births
		byKey[h.Inode().Key()] = h
	}
	var pins []Held
	for _, h := range holds {
		meta, err := MetaOf(h)
		if err != nil {
			return nil, fmt.Errorf("the %s's record of %s: %w", who, h.Key, err)
		}
		if file, ok := byKey[h.Key]; ok {
			pins = append(pins, Held{HeldFile: file, Owners: h.Owners, Meta: meta})
		}
	}
	return pins, nil
}
