package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// FileName is the name of a journal in its run's directory.
const FileName = "journal.jsonl"

// Record is one line of a journal, in JSON, with a checksum. It is written and fsynced before
// the run goes on. Only the last line of a journal may be torn.
type Record struct {
	Seq      int             `json:"seq"`                // 1, 2, 3, ...; Write sets it
	Time     time.Time       `json:"time"`               // UTC; Write sets it
	Instance string          `json:"instance,omitempty"` // UUID; empty for the run as a whole
	Step     string          `json:"step"`               // StepRun, ...
	Phase    recover.Phase   `json:"phase"`              // how far the step has come
	Path     string          `json:"path,omitempty"`     // the file that the step is about
	Data     json.RawMessage `json:"data,omitempty"`     // what the step carries; only this package decodes it
	Error    string          `json:"error,omitempty"`    // why the step failed; of PhaseFailed only
}

// Point returns the record's name as a failpoint: "copy.begin".
func (r Record) Point() string { return r.Step + "." + string(r.Phase) }

// decode unpacks a record's data into v.
func (r Record) decode(v any) error {
	if err := json.Unmarshal(r.Data, v); err != nil {
		return fmt.Errorf("journal record %d (%s): %w", r.Seq, r.Point(), err)
	}
	return nil
}

// Writer writes the records of one run. It is safe for concurrent use.
type Writer struct {
	mu        sync.Mutex
	file      *os.File
	seq       int
	length    int64 // of the complete lines, in bytes
	reserved  bool  // Reserve has reserved room behind length
	failpoint func(string)
}

// Open opens the journal of the run in dir for appending, and returns the records
// that it already has. It cuts off a torn last line; a damaged line is an
// error. failpoint, which may be nil, is called with each record's Point when the record
// is on disk.
func Open(dir string, failpoint func(string)) (*Writer, []Record, error) {
	f, err := openFile(dir, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, nil, fmt.Errorf("open the journal: %w", err)
	}
	records, length, err := readRecords(f)
	if err == nil {
		err = cut(f, length)
	}
	if err == nil {
		err = statedir.SyncDir(dir)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open the journal in %s: %w", dir, err)
	}
	j := &Writer{file: f, length: length, failpoint: failpoint}
	if len(records) > 0 {
		j.seq = records[len(records)-1].Seq
	}
	return j, records, nil
}

// openFile opens the journal in dir, which must be a regular file. It does not wait for a
// FIFO's other end.
func openFile(dir string, flags int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, FileName), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", f.Name(), copier.ErrNotRegular)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Write appends one record, with data as its Data unless that is nil, and returns when
// it is on disk. It sets Seq and Time. A step's data is of the type that StepRun and its
// like name. The error wraps that of the file system, as unix.ENOSPC; the next record
// overwrites what a failed write left.
func (j *Writer) Write(r Record, data any) error {
	if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("journal %s: %w", r.Point(), err)
		}
		r.Data = raw
	}
	if err := j.append(&r); err != nil {
		return fmt.Errorf("journal %s: %w", r.Point(), err)
	}
	if j.failpoint != nil {
		j.failpoint(r.Point())
	}
	return nil
}

func (j *Writer) append(r *Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	r.Seq, r.Time = j.seq, time.Now().UTC()
	line, err := encode(*r)
	if err != nil {
		return err
	}
	// Always behind the last complete line: this overwrites the part of a line that a
	// failed write left, if it could not be cut off.
	n, err := j.file.WriteAt(line, j.length)
	if err == nil {
		err = unix.Fdatasync(int(j.file.Fd()))
	}
	if err != nil {
		return errors.Join(err, cut(j.file, j.length))
	}
	j.length += int64(n)
	return nil
}

// cut cuts off what is behind the complete lines. A file that ends there is left alone: to
// truncate it would give up what Reserve has reserved behind its end.
func cut(f *os.File, length int64) error {
	st, err := f.Stat()
	if err != nil || st.Size() == length {
		return err
	}
	return f.Truncate(length)
}

// Reserve reserves room for that many bytes of records to come, so that a state directory
// that somebody fills up does not stop the run in the middle. Where the file system can't
// reserve (NFS, many in user space) it sees that the bytes are free now. recover.ErrNoSpace
// when they are not.
func (j *Writer) Reserve(bytes int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if bytes <= 0 {
		return nil // a run that touches nothing; fallocate(2) refuses no bytes with EINVAL
	}
	err := unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.length, bytes)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		var room unix.Statfs_t
		if err = unix.Fstatfs(int(j.file.Fd()), &room); err == nil && int64(room.Bfree)*room.Bsize < bytes {
			err = unix.ENOSPC
		}
	}
	switch {
	case err == nil:
		j.reserved = true
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: the run's journal needs %s in the state directory: free some there, or set state_dir to another one (%w)",
			recover.ErrNoSpace, humanize.IBytes(uint64(bytes)), err)
	default:
		return fmt.Errorf("reserve room for the journal: %w", err)
	}
}

// Close closes the file. What was written stays on disk; what was reserved and not used is
// given back.
func (j *Writer) Close() error {
	var err error
	if j.reserved {
		err = j.file.Truncate(j.length)
	}
	return errors.Join(err, j.file.Close())
}

// Read returns the records of the run in dir; none if it has no journal. It skips
// a torn last line, which a crash can leave. After an error about a damaged line the
// result is the records before that line: what is behind it may build on what it said.
func Read(dir string) ([]Record, error) {
	f, err := openFile(dir, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the run was killed before its first record
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	records, _, err := readRecords(f)
	return records, err
}

// DamagedName is the name under which Salvage keeps a damaged journal.
const DamagedName = FileName + ".damaged"

// Salvage puts the damaged journal of the run in dir aside, under DamagedName, and makes
// one of the records that can be read in its place. A journal that is not damaged it leaves
// as it is. A kill in the middle leaves the damaged one, or both.
func Salvage(dir string) error {
	records, err := Read(dir)
	if err == nil {
		return nil
	}
	var lines []byte
	for _, r := range records {
		line, err := encode(r)
		if err != nil {
			return err
		}
		lines = append(lines, line...)
	}
	name := filepath.Join(dir, FileName)
	if lerr := os.Link(name, filepath.Join(dir, DamagedName)); lerr != nil && !errors.Is(lerr, fs.ErrExist) {
		return fmt.Errorf("put the damaged journal aside: %w", errors.Join(lerr, err))
	}
	return statedir.WriteFile(name, lines)
}
