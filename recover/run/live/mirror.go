package live

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/staging"
)

// mirror is one disk on its way to a new file. The file is staged but for two
// moments: when QEMU opens it, by the disk's own path, and from the guest's suspend
// on.
type mirror struct {
	root *beneath.Root
	want recover.FilePlan // the disk
	disk recover.Disk     // with its chain, as libvirt has it

	dir   *staging.Directory // nil when an interrupted run's is gone
	name  string             // in dir
	file  *os.File           // nil when an interrupted run's is gone
	inode recover.Inode

	copied int64
	show   recover.FileProgress

	placing bool // it may have its disk's name, and is complete
	// The pivot was begun, and is known to have happened.
	pivoting, pivoted bool
	published         bool // it has its owner

	// It was checked as an image, or by the operator's word need not be.
	checked bool
	// It was compared with the lost inode, and is the same.
	compared bool
}

// newMirror makes an empty file for the disk, in that directory.
func newMirror(root *beneath.Root, dir *staging.Directory, uuid string, f recover.FilePlan, disk recover.Disk) (*mirror, error) {
	name, err := staging.StageName(uuid, f)
	if err != nil {
		return nil, err
	}
	m := &mirror{root: root, want: f, disk: disk, dir: dir, name: name}
	if m.file, err = dir.Create(name); err != nil {
		return nil, staging.CopyError(f, err)
	}
	return m, nil
}

// reopenMirror returns the mirror that an interrupted run had begun, with no file
// when that is gone.
func reopenMirror(root *beneath.Root, dirs *staging.Directories, f recover.FilePlan, rec journal.Mirror) (*mirror, error) {
	dir, err := dirs.Reopen(rec.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m := &mirror{root: root, want: f, disk: rec.Disk, dir: dir, name: rec.Name}
	if dir != nil {
		m.file, err = dir.Open(rec.Name, os.O_RDWR)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = m.atItsPath(func(dir *beneath.Dir, name string) error {
			m.file, err = dir.Open(name, os.O_RDWR)
			return err
		})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = m.measure()
	}
	if err == nil && !rec.Is(m.inode) {
		m.close()
		m.file = nil
	}
	return m, err
}

func (m *mirror) measure() (err error) {
	m.inode, _, err = staging.Measured(m.file)
	return err
}

// isProven is true when something says that the mirror is what it is of.
func (m *mirror) isProven() bool { return m.checked || m.compared }

// record is what the journal says of the mirror when it begins.
func (m *mirror) record() journal.Mirror {
	return journal.Mirror{
		Target: m.want.Target,
		Dir:    m.dir.Path(),
		Name:   m.name,
		Inode:  m.inode.Inode,
		Birth:  m.inode.Birth,
		Source: m.want.Key(),
		Disk:   m.disk,
	}
}

// lend gives the mirror its disk's own path.
func (m *mirror) lend() error {
	return m.atItsPath(func(dir *beneath.Dir, name string) error {
		return m.dir.Publish(m.name, dir, name)
	})
}

// takeBack undoes lend: the mirror is in its staging directory again.
func (m *mirror) takeBack() error {
	return m.atItsPath(func(dir *beneath.Dir, name string) error {
		return m.dir.TakeBack(m.name, dir, name)
	})
}

// atItsPath does something in the directory of the disk's path, with its name.
func (m *mirror) atItsPath(do func(dir *beneath.Dir, name string) error) error {
	dir, err := m.root.OpenDir(filepath.Dir(m.want.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir, filepath.Base(m.want.Path))
}

// place is the path at which the mirror's file is, or was last.
func (m *mirror) place(atItsPath bool) string {
	if !atItsPath && m.dir != nil {
		return m.dir.Path() + "/" + m.name
	}
	return m.want.Path
}

// remove removes the mirror's file, wherever it is.
func (m *mirror) remove() error {
	var err error
	if m.dir != nil {
		err = m.dir.Remove(m.name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	lent := m.atItsPath(func(dir *beneath.Dir, name string) error {
		st, err := dir.Stat(name)
		if err != nil || st.Inode() != m.inode {
			return err
		}
		return dir.Remove(name)
	})
	if errors.Is(lent, fs.ErrNotExist) {
		lent = nil
	}
	return errors.Join(err, lent)
}

// close closes the mirror's file and leaves it as it is.
func (m *mirror) close() {
	if m.file != nil {
		m.file.Close()
	}
}
