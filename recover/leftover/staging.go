package leftover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Staging is a directory of staged copies of a run of which no journal is left.
type Staging struct {
	Path      string   `json:"path"`
	Run       string   `json:"run"`
	Instances []string `json:"instances"` // UUIDs, as the names of its files say
	Files     int      `json:"files"`
	Allocated int64    `json:"allocated"` // bytes on disk
}

// Unclaimed lists the staging directories below the instances directory that are root's and
// that no run of the state directory has made: it may be a run of another state directory, or
// of one that was removed. Of what others have put there nothing is said.
func Unclaimed(settings recover.Settings) ([]Staging, error) {
	root, err := beneath.OpenRoot(settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer root.Close()
	list := []Staging{}
	for _, at := range []string{settings.InstancesPath, filepath.Join(settings.InstancesPath, "_base")} {
		dir, err := root.OpenDir(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return list, err
		}
		found, err := unclaimedIn(dir, statedir.Dir(settings.StateDir))
		dir.Close()
		list = append(list, found...)
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

func unclaimedIn(dir *beneath.Dir, state statedir.Dir) ([]Staging, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	var list []Staging
	for _, name := range names {
		run, ok := strings.CutPrefix(name, recover.StagePrefix)
		if !ok {
			continue
		}
		if _, err := os.Lstat(state.Run(filepath.Base(run))); err == nil {
			continue
		}
		sub, err := dir.Subdir(name)
		if err != nil {
			continue // a file, or gone by now
		}
		if st, err := sub.Info(); err == nil && st.Uid == 0 && st.Mode&0o077 == 0 {
			list = append(list, measured(sub, run))
		}
		sub.Close()
	}
	return list, nil
}

// measured says what is in a staging directory. Its files are called UUID.NAME.HASH.
func measured(dir *beneath.Dir, run string) Staging {
	s := Staging{Path: dir.Path(), Run: run, Instances: []string{}}
	names, _ := dir.Names() // of one that can't be read there is nothing to say
	for _, name := range names {
		st, err := dir.Stat(name)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		s.Files++
		s.Allocated += st.Blocks * 512
		if uuid, _, ok := strings.Cut(name, "."); ok && len(uuid) == 36 && !slices.Contains(s.Instances, uuid) {
			s.Instances = append(s.Instances, uuid)
		}
	}
	return s
}
