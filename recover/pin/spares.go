package pin

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// spares are what the keeper holds, open once more: with them another keeper takes the place
// of one that dies. A file is closed when the keeper has released it.
type spares map[string]*spare // by key

type spare struct {
	file   *os.File
	owners map[string]bool
	meta   json.RawMessage
	// others had it open when it was pinned.
	others []recover.Holder
}

// add notes that the keeper holds a file for an owner. The file stays the caller's.
func (s spares) add(key, owner string, meta json.RawMessage, f *os.File, others ...recover.Holder) error {
	one := s[key]
	if one == nil {
		fd := -1
		err := keeper.Control(f, func(old int) (err error) {
			fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
			return err
		})
		if err != nil {
			return err
		}
		one = &spare{file: os.NewFile(uintptr(fd), f.Name()), owners: map[string]bool{}}
		s[key] = one
	}
	one.owners[owner] = true
	one.others = append(one.others, others...)
	if meta != nil {
		one.meta = meta
	}
	return nil
}

// release notes that the keeper has released files of an owner: all when no key is given.
func (s spares) release(owner string, keys ...string) {
	for key, one := range s {
		if !one.owners[owner] || len(keys) > 0 && !slices.Contains(keys, key) {
			continue
		}
		delete(one.owners, owner)
		if len(one.owners) == 0 {
			one.file.Close()
			delete(s, key)
		}
	}
}

// missing returns the keys of which those holds lack an owner.
func (s spares) missing(holds []keeper.Hold) []string {
	has := map[string][]string{}
	for _, h := range holds {
		has[h.Key] = h.Owners
	}
	var keys []string
	for key, one := range s {
		for owner := range one.owners {
			if !slices.Contains(has[key], owner) {
				keys = append(keys, key)
				break
			}
		}
	}
	return slices.Sorted(slices.Values(keys))
}

// owners returns those for whom something is held.
func (s spares) owners() map[string]bool {
	all := map[string]bool{}
	for _, one := range s {
		maps.Copy(all, one.owners)
	}
	return all
}

// isLast is true when one of an owner's files is open in none of the processes that had it
// open when it was pinned.
func (s spares) isLast(owner string) bool {
	for key, one := range s {
		if one.owners[owner] && len(one.others) > 0 && !isOpenIn(key, one.others) {
			return true
		}
	}
	return false
}

// isOpenIn is true when one of the holders has the inode of that key open still. The file is
// open here as well, so its number tells it from every other.
func isOpenIn(key string, holders []recover.Holder) bool {
	want, ok := recover.ParseKey(key)
	return ok && slices.ContainsFunc(holders, func(h recover.Holder) bool {
		st, err := identity.At(unix.AT_FDCWD, fmt.Sprintf("%s/%d/fd/%d", procfs.Dir, h.PID, h.FD), 0)
		return err == nil && st.Inode().Is(want, true)
	})
}

func (s spares) close() {
	for _, one := range s {
		one.file.Close()
	}
	maps.DeleteFunc(s, func(string, *spare) bool { return true })
}
