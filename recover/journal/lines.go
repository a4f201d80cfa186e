package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ErrDamaged: a line of a journal is not what was written.
var ErrDamaged = errors.New("the journal is damaged")

// The checksum is the last field of a line: the CRC-32C of all that is before it. A line that
// is JSON still, with a bit turned over, is another truth.
const (
	sumField  = "crc32c"
	sumBegins = `,"` + sumField + `":"`
	sumEnds   = `"}`
	sumLength = len(sumBegins) + 8 + len(sumEnds)
)

// sectorSize is what a disk writes in one piece, at least.
const sectorSize = 512

// encode returns the line of a record, with its end.
func encode(r Record) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	body = body[:len(body)-1] // the brace
	return append(append(body, sumOf(body)...), '\n'), nil
}

func sumOf(body []byte) string {
	return fmt.Sprintf("%s%08x%s", sumBegins, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)), sumEnds)
}

// decodeLine returns the record of a line without its end, and whether that has a checksum:
// those of earlier releases have none.
func decodeLine(line []byte) (rec Record, summed bool, err error) {
	if body := len(line) - sumLength; body > 0 && bytes.HasPrefix(line[body:], []byte(sumBegins)) {
		if summed = true; string(line[body:]) != sumOf(line[:body]) {
			return rec, true, errors.New("its checksum is of something else")
		}
	}
	return rec, summed, json.Unmarshal(line, &rec)
}

// readRecords returns the records of a journal and the length of their lines in bytes.
// A line that is not a record is ErrDamaged, unless it is the last one and torn; the records
// before it are returned in either case.
func readRecords(r io.Reader) ([]Record, int64, error) {
	var records []Record
	var length int64
	summed := false // the last line
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return nil, 0, err
		}
		if last && !endsOtherwise(line) {
			return records, length, nil // a line without its newline was never fsynced
		}
		rec, hasSum, err := decodeLine(bytes.TrimSuffix(line, []byte("\n")))
		switch {
		case err == nil && last:
			err = errors.New("its end is missing")
		case err == nil && summed && !hasSum:
			err = errors.New("its checksum is missing")
		}
		if err == nil {
			records, length, summed = append(records, rec), length+int64(len(line)), hasSum
			continue
		}
		_, perr := in.Peek(1)
		ofOld := !summed && !bytes.Contains(line, []byte(sumField))
		if errors.Is(perr, io.EOF) && (ofOld || isTorn(line, length)) {
			return records, length, nil
		}
		return records, length, fmt.Errorf("%w after record %d: %w", ErrDamaged, len(records), err)
	}
}

// endsOtherwise is true for a whole line that ends with another byte than a newline: that was
// a newline once.
func endsOtherwise(line []byte) bool {
	if len(line) < 2 {
		return false
	}
	_, summed, err := decodeLine(line[:len(line)-1])
	return summed && err == nil
}

// isTorn is true for a line, at that offset, of which a crash has left out a whole sector:
// those that did not get to the disk are zeros.
func isTorn(line []byte, at int64) bool {
	for line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0; {
		part := line[:min(int64(len(line)), sectorSize-at%sectorSize)]
		if len(bytes.Trim(part, "\x00")) == 0 {
			return true
		}
		line, at = line[len(part):], at+int64(len(part))
	}
	return false
}
