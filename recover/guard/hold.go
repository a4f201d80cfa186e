package guard

import (
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/pin"
)

// guardHold is one file that the guard holds.
type guardHold struct {
	holdMemory
	file   *os.File
	shelf  string // its name on the shelf; empty when it is not there
	bytes  int64  // on disk, at the last look
	direct bool   // the descriptor has O_DIRECT
}

// holdMemory is what of a hold outlives the guard's process, in holds.json.
type holdMemory struct {
	Device  uint64       `json:"device"`
	Inode   uint64       `json:"inode"`
	Birth   string       `json:"birth,omitempty"`
	Path    string       `json:"path"` // the last name that was seen
	Owners  []string     `json:"owners,omitempty"`
	Role    recover.Role `json:"role"`
	Format  string       `json:"format,omitempty"`
	Target  string       `json:"target,omitempty"`
	Backing string       `json:"backing,omitempty"`
	Since   time.Time    `json:"since"`
	// Deleted is when it was seen without a name first; zero while it has one.
	Deleted time.Time `json:"deleted,omitzero"`
	// Needed is true once an instance that exists had lost it: then only a proven
	// copy, Nova's word, or an operator's lets it go.
	Needed bool `json:"needed,omitempty"`
	// Belongs is the path that the definition of its instance gave it; empty when none did.
	Belongs string `json:"belongs,omitempty"`
	// Retired are the owners whose domain was undefined after the deletion, as Nova does
	// before it makes other disks in a rebuild (nova/virt/libvirt/driver.py, _cleanup).
	Retired []string `json:"retired,omitempty"`
	// Opened is true once the QEMU of an instance, or virtlogd, has had it open.
	Opened bool `json:"opened,omitempty"`
}

// newHold makes the hold of an open file. The file stays the caller's on error.
func newHold(f *os.File, m holdMemory) (*guardHold, error) {
	st, err := identity.OfFile(f)
	if err != nil {
		return nil, err
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return nil, err
	}
	m.Device, m.Inode, m.Birth = st.Dev, st.Ino, st.Birth
	if m.Since.IsZero() {
		m.Since = time.Now().UTC()
	}
	return &guardHold{holdMemory: m, file: f, bytes: st.Blocks * 512, direct: flags&unix.O_DIRECT != 0}, nil
}

func (m holdMemory) inode() recover.Inode {
	return recover.Inode{Device: m.Device, Inode: m.Inode, Birth: m.Birth}
}

// isOf is true when the file is held for the instance.
func (m holdMemory) isOf(uuid string) bool { return slices.Contains(m.Owners, uuid) }

// meta is what a scan and the keeper are told of the hold.
func (m holdMemory) meta() pin.Meta {
	return pin.Meta{Path: m.Path, Role: m.Role, Format: m.Format, Target: m.Target, Backing: m.Backing, Run: pin.GuardRun,
		Needed: m.Needed, Belongs: m.Belongs, Retired: slices.Clone(m.Retired), Opened: m.Opened,
		Stray: m.Role == recover.RoleOther && m.Belongs == "" && !m.Opened}
}

func (m holdMemory) copy() holdMemory {
	m.Owners, m.Retired = slices.Clone(m.Owners), slices.Clone(m.Retired)
	return m
}

func (m holdMemory) same(other holdMemory) bool {
	return m.Path == other.Path && slices.Equal(m.Owners, other.Owners) && m.Role == other.Role && m.Format == other.Format &&
		m.Target == other.Target && m.Backing == other.Backing && m.Deleted.Equal(other.Deleted) && m.Needed == other.Needed &&
		m.Belongs == other.Belongs && m.Opened == other.Opened && slices.Equal(m.Retired, other.Retired)
}

// addOwner adds an instance for which the file is held.
func (m *holdMemory) addOwner(uuid string) {
	if uuid == "" || m.isOf(uuid) {
		return
	}
	m.Owners = slices.Concat(m.Owners, []string{uuid})
	slices.Sort(m.Owners)
}

func (m *holdMemory) dropOwner(uuid string) {
	m.Owners = slices.DeleteFunc(m.Owners, func(o string) bool { return o == uuid })
}

// copy is for those who look at a hold without the lock.
func (h *guardHold) copy() guardHold {
	c := *h
	c.holdMemory = h.holdMemory.copy()
	return c
}
