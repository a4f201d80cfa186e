package beneath

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strconv"
	"strings"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// ErrUnknownName: there is no such user or group. The error is an
// *UnknownNameError, which has the name.
var ErrUnknownName = errors.New("unknown user or group")

// UnknownNameError is a user or group that a Root does not know. errors.Is finds
// ErrUnknownName in it.
type UnknownNameError struct {
	Kind string // "user" or "group"
	Name string
	Root string // the root it was looked up in
}

func (e *UnknownNameError) Error() string {
	return fmt.Sprintf("there is no %s %q in %s", e.Kind, e.Name, e.Root)
}

// Unwrap makes errors.Is(err, ErrUnknownName) true.
func (e *UnknownNameError) Unwrap() error { return ErrUnknownName }

// maxIDFile bounds another root's passwd or group file, in bytes.
const maxIDFile = 16 << 20

// LookupUser returns the uid of a user as this root knows it now. Nothing is
// cached, because a reinstalled package may give its user another uid. In the
// process's own root it asks NSS; in any other it reads etc/passwd there. Names
// and numbers are told apart as in libvirt (virGetUserID, src/util/virutil.c):
// "+64055" is a number, and "64055" is one unless a user has that name. An unknown
// name is an *UnknownNameError; any other error means that the lookup failed, not
// that there is no such user.
func (r *Root) LookupUser(name string) (uint32, error) {
	return r.lookup("user", name, "passwd", func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// LookupGroup is LookupUser for groups and etc/group.
func (r *Root) LookupGroup(name string) (uint32, error) {
	return r.lookup("group", name, "group", func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

// Owner looks up a user and a group and joins them with a mode. Errors are those
// of LookupUser and LookupGroup, both of them when both fail.
func (r *Root) Owner(userName, groupName string, mode fs.FileMode) (Owner, error) {
	uid, uerr := r.LookupUser(userName)
	gid, gerr := r.LookupGroup(groupName)
	if err := errors.Join(uerr, gerr); err != nil {
		return Owner{}, err
	}
	return Owner{UID: uid, GID: gid, Mode: mode}, nil
}

// UserName returns the name that this root gives a user now; empty when it has none, or when
// that can't be found out. Of several names for one number it is the first.
func (r *Root) UserName(uid uint32) string {
	return r.nameOf(uid, "passwd", func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

// GroupName is UserName for groups.
func (r *Root) GroupName(gid uint32) string {
	return r.nameOf(gid, "group", func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

func (r *Root) nameOf(id uint32, file string, nss func(string) (string, error)) string {
	if own, err := r.isOwn(file); err != nil {
		return ""
	} else if own {
		name, err := nss(strconv.FormatUint(uint64(id), 10))
		if err != nil {
			return ""
		}
		return name
	}
	data, err := r.readIDFile(file)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(data) {
		name, number, ok := parseIDLine(line)
		if n, valid := parseID(number); ok && valid && n == id {
			return name
		}
	}
	return ""
}

func (r *Root) lookup(kind, name, file string, nss func(string) (string, error)) (uint32, error) {
	unknown := &UnknownNameError{Kind: kind, Name: name, Root: r.path}
	if number, ok := strings.CutPrefix(name, "+"); ok {
		if id, ok := parseID(number); ok {
			return id, nil
		}
		return 0, unknown
	}
	own, err := r.isOwn(file)
	if err != nil {
		return 0, err
	}
	var id uint32
	var found bool
	if own {
		id, found, err = lookupNSS(name, nss)
	} else {
		id, found, err = r.lookupFile(name, file)
	}
	if err != nil {
		return 0, fmt.Errorf("look up %s %q in %s: %w", kind, name, r.path, err)
	}
	if !found {
		id, found = parseID(name)
	}
	if !found {
		return 0, unknown
	}
	return id, nil
}

// isOwn reports whether the root is this process's own "/", with the same file in /etc:
// another mount namespace may differ in that alone.
func (r *Root) isOwn(file string) (bool, error) {
	own, err := OpenRoot("/")
	if err != nil {
		return false, err
	}
	defer own.Close()
	a, err := fstat(own.fd, "/")
	if err != nil {
		return false, err
	}
	b, err := fstat(r.fd, r.path)
	if err != nil || a.Dev != b.Dev || a.Ino != b.Ino {
		return false, err
	}
	a, err = fstatat(own.fd, "etc/"+file, "/etc/"+file)
	if err != nil {
		return true, nil // NSS may do without the file
	}
	b, err = fstatat(r.fd, "etc/"+file, "/etc/"+file)
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino, err
}

func lookupNSS(name string, nss func(string) (string, error)) (uint32, bool, error) {
	text, err := nss(name)
	var noUser user.UnknownUserError
	var noGroup user.UnknownGroupError
	if errors.As(err, &noUser) || errors.As(err, &noGroup) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	id, ok := parseID(text)
	if !ok {
		return 0, false, fmt.Errorf("its ID %q is not a usable number", text)
	}
	return id, true, nil
}

func (r *Root) lookupFile(name, file string) (uint32, bool, error) {
	data, err := r.readIDFile(file)
	if err != nil {
		return 0, false, err
	}
	id, found := findID(data, name)
	return id, found, nil
}

// readIDFile reads this root's etc/passwd or etc/group.
func (r *Root) readIDFile(file string) ([]byte, error) {
	etc, err := r.OpenDir("/etc")
	if err != nil {
		return nil, err
	}
	defer etc.Close()
	f, err := etc.Open(file, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return plainfile.All(f, maxIDFile)
}

// findID looks up a name in the text of a passwd(5) or group(5) file. The first usable line
// wins, as in glibc's "files" database.
func findID(data []byte, name string) (uint32, bool) {
	for line := range bytes.Lines(data) {
		n, number, ok := parseIDLine(line)
		if !ok || n != name {
			continue
		}
		if id, ok := parseID(number); ok {
			return id, true
		}
	}
	return 0, false
}

// parseIDLine returns the name and the number of a line of passwd(5) or group(5), which have
// them in the same fields; false for a malformed line.
func parseIDLine(line []byte) (name, number string, ok bool) {
	fields := strings.Split(string(bytes.TrimRight(line, "\n")), ":")
	if len(fields) < 4 || fields[0] == "" || strings.ContainsAny(fields[0][:1], "#+-") {
		return "", "", false
	}
	return fields[0], fields[2], true
}

// parseID takes decimal digits only, and not 2^32-1: to chown(2) that means
// "leave it as it is".
func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, false
	}
	return uint32(id), true
}
