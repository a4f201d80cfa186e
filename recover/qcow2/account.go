package qcow2

import (
	"bufio"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Account is a user ID and a group ID that a process runs as.
type Account struct{ UID, GID uint32 }

// No distribution and no directory service gives out the IDs from firstUnused on: sssd maps the
// accounts of Active Directory to IDs up to 2000200000 (sssd-ad(5), ldap_idmap_range_max), and
// systemd keeps those from 2147352576 on for other uses (systemd's UIDS-GIDS.md).
const (
	firstUnused = 2000200001
	endOfUnused = 2147352576
)

// unusedAccount returns an account that nothing else runs as, and that nobody can become: who
// shares a user ID with qemu-img could open what it has open, and for writing.
func unusedAccount() (Account, error) {
	taken, err := procfs.IDsInUse(procfs.Dir)
	if err != nil {
		return Account{}, err
	}
	given, err := subordinate("/etc/subuid", "/etc/subgid")
	if err != nil {
		return Account{}, err
	}
	for range 1000 {
		id := firstUnused + rand.Uint32N(endOfUnused-firstUnused) //nolint:gosec // it need not be a secret
		if !taken[id] && !given.has(id) {
			return Account{UID: id, GID: id}, nil
		}
	}
	return Account{}, errors.New("every user ID that is tried belongs to somebody")
}

// idRanges are IDs that somebody may take for the user namespaces that he makes.
type idRanges []idRange

type idRange struct{ first, count uint64 }

func (r idRanges) has(id uint32) bool {
	for _, one := range r {
		if uint64(id) >= one.first && uint64(id)-one.first < one.count {
			return true
		}
	}
	return false
}

// subordinate reads files as subuid(5) describes them. One that is missing gives nobody an ID.
func subordinate(paths ...string) (idRanges, error) {
	var ranges idRanges
	for _, path := range paths {
		f, err := plainfile.Open(path, plainfile.Rules{Symlinks: true})
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Split(lines.Text(), ":")
			if len(fields) != 3 {
				continue
			}
			first, errFirst := strconv.ParseUint(fields[1], 10, 64)
			count, errCount := strconv.ParseUint(fields[2], 10, 64)
			if errFirst == nil && errCount == nil {
				ranges = append(ranges, idRange{first, count})
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	return ranges, nil
}
