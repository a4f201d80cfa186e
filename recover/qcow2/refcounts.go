package qcow2

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

// refcountFindings counts, among the lines that qemu-img check writes, those which stale
// refcounts alone explain: a cluster that is in use and not counted yet, and an entry that
// rightly calls such a cluster its own. QEMU prints them in check_refcounts and
// check_oflag_copied (block/qcow2-refcount.c).
type refcountFindings struct {
	rest   io.Writer // gets everything
	shared bool      // internal snapshots may rightly share clusters
	stale  int64
	line   []byte // the beginning of one that has not ended
}

// maxFinding bounds what is kept of a line; QEMU's are shorter.
const maxFinding = 512

func (r *refcountFindings) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		r.line = append(r.line, part[:min(len(part), maxFinding-len(r.line))]...)
		if ended {
			if r.isStale(string(r.line)) {
				r.stale++
			}
			r.line = r.line[:0]
		}
		rest = after
	}
	return r.rest.Write(p)
}

func (r *refcountFindings) isStale(line string) bool {
	rest, ok := strings.CutPrefix(line, "ERROR ")
	if !ok {
		return false
	}
	fields := map[string]string{}
	for field := range strings.FieldsSeq(rest) {
		if name, value, ok := strings.Cut(field, "="); ok {
			fields[name] = value
		}
	}
	if strings.HasPrefix(rest, "OFLAG_COPIED ") {
		return fields["refcount"] == "0"
	}
	counted, err := strconv.ParseUint(fields["refcount"], 10, 64)
	used, err2 := strconv.ParseUint(fields["reference"], 10, 64)
	return strings.HasPrefix(rest, "cluster ") && err == nil && err2 == nil && counted < used && (used == 1 || r.shared)
}
