package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// FileName is the name of a journal in its run's directory.
const FileName = "journal.jsonl"

// Record is one line of a journal, in JSON. It is written and fsynced before the run
// goes on. Only the last line of a journal may be torn.
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
	failpoint func(string)
}

// Open opens the journal of the run in dir for appending, and returns the records
// that it already has. It cuts off a torn last line; a damaged line before that is an
// error. failpoint, which may be nil, is called with each record's Point when the record
// is on disk.
func Open(dir string, failpoint func(string)) (*Writer, []Record, error) {
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the journal: %w", err)
	}
	records, length, err := readRecords(f)
	if err == nil {
		err = f.Truncate(length)
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
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// Always behind the last complete line: this overwrites the part of a line that a
	// failed write left, if it could not be cut off.
	n, err := j.file.WriteAt(append(line, '\n'), j.length)
	if err == nil {
		err = unix.Fdatasync(int(j.file.Fd()))
	}
	if err != nil {
		return errors.Join(err, j.file.Truncate(j.length))
	}
	j.length += int64(n)
	return nil
}

// Close closes the file. What was written stays on disk.
func (j *Writer) Close() error { return j.file.Close() }

// Read returns the records of the run in dir; none if it has no journal. It skips
// a torn last line, which a crash can leave. After an error about a damaged line the
// result is the records before that line.
func Read(dir string) ([]Record, error) {
	f, err := os.Open(filepath.Join(dir, FileName))
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
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	name := filepath.Join(dir, FileName)
	if lerr := os.Link(name, filepath.Join(dir, DamagedName)); lerr != nil && !errors.Is(lerr, fs.ErrExist) {
		return fmt.Errorf("put the damaged journal aside: %w", errors.Join(lerr, err))
	}
	return statedir.WriteFile(name, lines)
}

// readRecords returns the records of a journal and the length of their lines in bytes.
// A line that is not a record is an error unless it is the last one; the records before
// it are returned in either case.
func readRecords(r io.Reader) ([]Record, int64, error) {
	var records []Record
	var length int64
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return records, length, nil // a line without its newline was never fsynced
		}
		if err != nil {
			return nil, 0, err
		}
		var rec Record
		if err := json.Unmarshal(bytes.TrimSpace(line), &rec); err != nil {
			if _, err := in.Peek(1); errors.Is(err, io.EOF) {
				return records, length, nil
			}
			return records, length, fmt.Errorf("the journal is damaged after record %d: %w", len(records), err)
		}
		records = append(records, rec)
		length += int64(len(line))
	}
}
