package startable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Missing is state of a running guest that is gone from the disk.
type Missing struct {
	Text   string   // what is gone, for people
	Losses []string // what its loss is called in Options.AcceptLoss, each once
}

// mostStateFiles is far more than swtpm keeps in its directory.
const mostStateFiles = 1000

// MissingState returns which state of a guest beside its disks is gone from the disk: its end
// would be the end of that, because a start makes it anew and empty. Nothing is missing of what
// Options.AcceptLoss names (accepted), and of a domain that the hypervisor does not know. The
// errors are those of Hypervisor.
func MissingState(ctx context.Context, hv recover.Hypervisor, s recover.Settings, uuid string, accepted []string) (Missing, error) {
	needs, err := hv.StartNeeds(ctx, uuid)
	if errors.Is(err, recover.ErrNoDomain) {
		return Missing{}, nil
	}
	if err != nil {
		return Missing{}, err
	}
	root, err := procfs.OpenRoot(s.Root)
	if err != nil {
		return Missing{}, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer root.Close()
	var missing Missing
	var gone []string
	for _, k := range needs.Kept {
		if slices.Contains(accepted, k.Loss) || !isGone(root, k.Path) {
			continue
		}
		gone = append(gone, fmt.Sprintf("%s (%s)", k.What, k.Path))
		if !slices.Contains(missing.Losses, k.Loss) {
			missing.Losses = append(missing.Losses, k.Loss)
		}
	}
	missing.Text = strings.Join(gone, " and ")
	return missing, nil
}

// isGone is true where nothing is, or a directory without any but hidden files: swtpm keeps its lock (.lock)
// beside the state.
func isGone(root procfs.Root, path string) bool {
	st, err := root.Stat(path)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.Is(err, fs.ErrNotExist)
	}
	names, err := root.Names(path, mostStateFiles)
	isShown := func(name string) bool { return !strings.HasPrefix(name, ".") }
	return err == nil && !slices.ContainsFunc(names, isShown) || errors.Is(err, fs.ErrNotExist)
}
