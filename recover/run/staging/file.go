package staging

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// stagedFile is a copy that waits for its name, or an identical file that stands at
// its path already.
type stagedFile struct {
	want      recover.FilePlan // what it is a copy of
	dir       *Directory
	name      string // in dir
	file      *os.File
	inode     recover.Inode
	size      int64
	kept      bool         // it stands at its path: dir is nil
	sums      *copier.Sums // of the copy as it is on the disk; none for a clone
	mark      copier.Mark  // of the inode that it is a copy of, when the proof began
	seen      copier.Mark  // of the copy, when it was proven
	inherited bool         // an interrupted run's: perhaps the only copy, never removed
	proven    bool
	published bool
	accepted  bool // an interrupted run published it, and its guest may have written since: it is not compared
}

// StageName returns a name for the copy of an instance's file that no other copy has, not
// even one of another try: a copy that was proven once is written only by LookAgain. It has
// at most 110 bytes, whatever the file is called: eCryptfs takes 143.
func StageName(uuid string, f recover.FilePlan) (string, error) {
	unique := make([]byte, 4)
	if _, err := rand.Read(unique); err != nil {
		return "", err
	}
	name := filepath.Base(f.Path)
	return uuid + "." + name[:min(len(name), 64)] + "." + hex.EncodeToString(unique), nil
}

// place is the path at which a staged copy is.
func (f *stagedFile) place() string { return f.dir.Path() + "/" + f.name }

// isBack is true when the file is at its path.
func (f *stagedFile) isBack() bool { return f.published || f.kept }

func (f *stagedFile) measure() (err error) {
	f.inode, f.size, err = Measured(f.file)
	return err
}

// proof returns what the copy is known again by.
func (f *stagedFile) proof() (journal.Proof, error) {
	st, err := f.file.Stat()
	if err != nil {
		return journal.Proof{}, err
	}
	return journal.Proof{Size: st.Size(), Digest: f.sums.Digest(), Modified: st.ModTime().UnixNano()}, nil
}

// Measured returns the inode of an open file, and its size in bytes.
func Measured(file *os.File) (recover.Inode, int64, error) {
	st, err := identity.OfFile(file)
	return st.Inode(), st.Size, err
}

// discard removes a staged copy that this try made and did not publish. The source
// still has every byte wherever this is called. f may be nil.
func (f *stagedFile) discard(ctx context.Context) error {
	if f == nil || f.inherited || f.isBack() || f.file == nil {
		return nil
	}
	f.file.Close()
	zerolog.Ctx(ctx).Debug().Str("name", f.name).Msg("remove the staged copy")
	err := f.dir.Remove(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// WriteContent writes a plan's content to an empty file, and to the disk.
func WriteContent(f *os.File, content string) error {
	if _, err := io.Copy(f, strings.NewReader(content)); err != nil {
		return err
	}
	return f.Sync()
}

// copyPrefix copies a growing file as long as it is now.
func copyPrefix(dst, src *os.File) (int64, error) {
	st, err := src.Stat()
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(dst, io.NewSectionReader(src, 0, st.Size()))
	if err == nil && n != st.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = dst.Sync()
	}
	return n, err
}

// SamePrefix compares the first n bytes of two files of which one may grow.
// recover.ErrUnproven when they differ.
func SamePrefix(a, b *os.File, n int64) error {
	x, y := io.NewSectionReader(a, 0, n), io.NewSectionReader(b, 0, n)
	bufX, bufY := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		i, errX := io.ReadFull(x, bufX)
		j, errY := io.ReadFull(y, bufY)
		if !bytes.Equal(bufX[:i], bufY[:j]) {
			return fmt.Errorf("%w: the copy of the console log differs", recover.ErrUnproven)
		}
		if errX != nil || errY != nil {
			if errors.Is(errX, io.EOF) || errors.Is(errX, io.ErrUnexpectedEOF) {
				return nil
			}
			return errors.Join(errX, errY)
		}
	}
}
