package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
)

// relinkPlans plan how single files get their names back.
type relinkPlans struct{ *planner }

// isRelinked is true for a displaced file that a run can give its name back.
func isRelinked(f recover.File) bool {
	return f.State == recover.FileDisplaced && len(f.Holders) > 0 &&
		(f.Remedy == recover.RemedyLinkBack || f.Remedy == recover.RemedyMoveBack)
}

// relinkedFiles returns the files of an instance that a run gives their names back.
func relinkedFiles(i recover.Instance) []recover.File {
	return slices.DeleteFunc(slices.Clone(i.Files), func(f recover.File) bool { return !isRelinked(f) })
}

// plan plans how a displaced file gets its name back; its error is a refusal.
func (p relinkPlans) plan(f recover.File) (recover.Relink, error) {
	r := recover.Relink{Path: f.Path, Remedy: f.Remedy, Device: f.Device, Inode: f.Inode, Birth: f.Birth}
	if err := p.nameIsFree(f); err != nil {
		return r, err
	}
	src, err := pin.Open(f)
	if err != nil {
		return r, err
	}
	defer src.File.Close()
	if err := p.notSharedFile(f.Path, src.File); err != nil {
		return r, err
	}
	if f.Remedy == recover.RemedyLinkBack {
		var st unix.Stat_t
		if err := unix.Fstat(int(src.File.Fd()), &st); err != nil {
			return r, err
		}
		if st.Nlink == 0 {
			return r, fmt.Errorf("%w: the last name of the file that belongs to %s was deleted just now: scan again",
				recover.ErrRefused, f.Path)
		}
		return r, canLink(f, src.File)
	}
	r.Found = f.Found
	return r, p.mayMove(f)
}

// nameIsFree checks that a file can get its name: that nothing has it, and that its
// directory is on the file's own file system.
func (p relinkPlans) nameIsFree(f recover.File) error {
	st, err := p.root.Lstat(f.Path)
	if err == nil {
		return fmt.Errorf("%w: another file (inode %d) stands at %s, and the file that QEMU has open (inode %d) is elsewhere: "+
			"look at both, then move the other one away", recover.ErrConflict, st.Ino, f.Path, f.Inode)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	near, err := p.root.Nearest(f.Path)
	if err != nil {
		return err
	}
	defer near.Close()
	dir, err := near.Info()
	if err == nil && dir.Dev != f.Device {
		err = fmt.Errorf("%w: %s is on another file system than the file that QEMU has open for %s: mount the right one there, then scan again",
			recover.ErrRefused, near.Path(), f.Path)
	}
	return err
}

// mayMove checks that the name that a file has now is its own, and that no other instance
// of the host, chosen or not, has the file by that name.
func (p relinkPlans) mayMove(f recover.File) error {
	st, err := p.root.Lstat(f.Found)
	if err != nil {
		return fmt.Errorf("%s can't be moved back to %s: %w", f.Found, f.Path, err)
	}
	// Its holder was seen to have it open a moment ago, and has it open still.
	if !st.Inode().Is(f.Identity(), true) || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%w: %s is not the file that QEMU has open for %s: scan again", recover.ErrRefused, f.Found, f.Path)
	}
	for _, i := range slices.Concat(p.Chosen.Here, p.Chosen.Bystanders) {
		for _, other := range i.Files {
			if filepath.Clean(other.Path) == filepath.Clean(f.Found) {
				return fmt.Errorf("%w: %s of %s has the path %s, and the file there is the one that QEMU has open for %s: if both need it, "+
					"link it there (ln), so that both have it; if %s does not, move it back by hand",
					recover.ErrRefused, filepath.Base(other.Path), i.Domain, f.Found, f.Path, i.Domain)
			}
		}
	}
	return nil
}

// relinkSteps describes how files get their names back.
func relinkSteps(relinks []recover.Relink, while string) (steps []string) {
	for _, r := range relinks {
		if r.Remedy == recover.RemedyMoveBack {
			steps = append(steps, fmt.Sprintf("move %s back%s: mv %s %s", r.Path, while, r.Found, r.Path))
		} else {
			steps = append(steps, fmt.Sprintf("link %s back%s: the file that QEMU has open has another name still", r.Path, while))
		}
	}
	return steps
}
