package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// errNoUUID: a compute_id holds something else than a UUID.
var errNoUUID = errors.New("it holds no UUID")

// ComputeID is a copy of Nova's compute_id (recover.ComputeIDName).
type ComputeID struct {
	Path    string           `json:"path"`            // where it was found
	UUID    string           `json:"uuid"`            // that it names, in lower case
	Content string           `json:"content"`         // what Nova reads of it
	User    string           `json:"user,omitempty"`  // its owner; empty when it had no name
	Group   string           `json:"group,omitempty"` // as User
	UID     uint32           `json:"uid"`             // its owner's number then
	GID     uint32           `json:"gid"`             // as UID
	Mode    recover.FileMode `json:"mode"`            // permission bits only
}

// maxComputeID is how many bytes Nova reads of the file (nova/virt/node.py,
// read_local_node_uuid).
const maxComputeID = 40

// readComputeID reads a compute_id. fs.ErrNotExist when there is none, errNoUUID, and the
// errors of beneath for one that is no regular file or behind a symlink.
func readComputeID(root *beneath.Root, path string) (ComputeID, error) {
	dir, err := root.OpenDir(filepath.Dir(path))
	if err != nil {
		return ComputeID{}, err
	}
	defer dir.Close()
	f, err := dir.Open(filepath.Base(path), os.O_RDONLY)
	if err != nil {
		return ComputeID{}, err
	}
	defer f.Close()
	status, err := identity.OfFile(f)
	if err != nil {
		return ComputeID{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxComputeID))
	if err != nil {
		return ComputeID{}, err
	}
	c := ComputeID{Path: path, Content: string(data), UID: status.Uid, GID: status.Gid, Mode: recover.FileMode(status.Mode & 0o777)}
	if c.UUID, err = uuidIn(c.Content); err != nil {
		return ComputeID{}, fmt.Errorf("%s: %w", path, err)
	}
	c.User, c.Group = root.UserName(c.UID), root.GroupName(c.GID)
	return c, nil
}

func uuidIn(content string) (string, error) {
	id, err := uuid.Parse(strings.TrimSpace(content))
	if err != nil {
		return "", errNoUUID
	}
	return id.String(), nil
}

func (d Dir) computeIDFile() string { return d.File("compute_id.json") }

// ComputeID returns the copy of the host's compute_id; nil when none was ever kept.
func (d Dir) ComputeID() (*ComputeID, error) {
	data, err := plainfile.Read(d.computeIDFile(), plainfile.Rules{Most: 64 << 10, Ours: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var c ComputeID
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil {
		c.UUID, err = uuidIn(c.Content)
	}
	if err == nil && (len(c.Content) > maxComputeID || !filepath.IsAbs(c.Path) || filepath.Base(c.Path) != recover.ComputeIDName) {
		err = errors.New("it is damaged")
	}
	if err != nil {
		return nil, fmt.Errorf("the guard's copy of %s (%s) can't be used: %w", recover.ComputeIDName, d.computeIDFile(), err)
	}
	return &c, nil
}

// KeepComputeID keeps a copy of the compute_id that is at one of the paths. Where none is,
// or where they contradict each other or the copy, the copy stays: only one of them is right.
func (d Dir) KeepComputeID(root *beneath.Root, paths []string) error {
	var now *ComputeID
	for _, path := range paths {
		c, err := readComputeID(root, path)
		switch {
		case err != nil: // ComputeIDFault tells, where it matters
		case now == nil:
			now = &c
		case now.UUID != c.UUID:
			return nil
		}
	}
	kept, err := d.ComputeID()
	if now == nil {
		return err
	}
	if kept != nil && (kept.UUID != now.UUID || *kept == *now) {
		return nil
	}
	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return statedir.WriteFile(d.computeIDFile(), data)
}

// ComputeIDFault says in what the compute_id at the paths, or where it was, differs from the
// guard's copy; nil when it does not, and when there is no copy.
func (d Dir) ComputeIDFault(root *beneath.Root, paths []string) *recover.ComputeIDFault {
	kept, err := d.ComputeID()
	if err != nil {
		return &recover.ComputeIDFault{Copy: d.computeIDFile(), Problem: err.Error()}
	}
	if kept == nil {
		return nil
	}
	fault := recover.ComputeIDFault{Path: kept.Path, UUID: kept.UUID, Copy: d.computeIDFile()}
	found, links := false, ""
	if !slices.Contains(paths, kept.Path) {
		paths = append(slices.Clip(paths), kept.Path)
	}
	for _, path := range paths {
		now, err := readComputeID(root, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, beneath.ErrSymlink): // Nova follows it, and may find the right one
			links = err.Error()
		case err != nil:
			fault.Problem = err.Error()
		case now.UUID != kept.UUID:
			fault.Problem = fmt.Sprintf("%s holds %s", path, now.UUID)
		default:
			found = true
		}
	}
	if !found && fault.Problem == "" {
		fault.Problem = links
		return &fault
	}
	if fault.Problem == "" {
		return nil
	}
	return &fault
}
