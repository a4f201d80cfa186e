package ground

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// User is an account that a ground must have.
type User struct {
	Name   string
	Group  string   // the primary one, which is made if it is missing; Name when empty
	Groups []string // further ones
	Home   string   // /nonexistent when empty; it is not made
	Shell  string   // /usr/sbin/nologin when empty
}

// UserID returns the id of a user of /etc/passwd. Package os/user may ask elsewhere.
func UserID(name string) (int, error) { return id("/etc/passwd", name) }

// GroupID returns the id of a group of /etc/group.
func GroupID(name string) (int, error) { return id("/etc/group", name) }

func groupID(etc, name string) (int, error) { return id(filepath.Join(etc, "group"), name) }

func id(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if fields := account(string(text), name); len(fields) > 2 {
		return strconv.Atoi(fields[2])
	}
	return 0, fmt.Errorf("no %s in %s", name, file)
}

// account returns the fields of a name in the text of an account file, nil if it is
// not there.
func account(text, name string) []string {
	for line := range strings.Lines(text) {
		if fields := strings.Split(strings.TrimSuffix(line, "\n"), ":"); fields[0] == name {
			return fields
		}
	}
	return nil
}

// accounts are the account files of a directory etc while they are edited.
type accounts struct {
	passwd, group   string
	shadow, gshadow string
}

// addAccounts adds users and groups to the account files of etc.
func addAccounts(etc string, users []User, groups []string) error {
	var a accounts
	files := map[string]*string{"passwd": &a.passwd, "group": &a.group, "shadow": &a.shadow, "gshadow": &a.gshadow}
	for name, text := range files {
		body, err := os.ReadFile(filepath.Join(etc, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if *text = string(body); *text != "" && !strings.HasSuffix(*text, "\n") {
			*text += "\n"
		}
	}
	for _, name := range groups {
		if err := a.addGroup(name); err != nil {
			return err
		}
	}
	for _, u := range users {
		if err := a.addUser(u); err != nil {
			return err
		}
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, "shadow") {
			mode = 0o600
		}
		// A file that is there keeps its mode.
		if err := os.WriteFile(filepath.Join(etc, name), []byte(*text), mode); err != nil {
			return err
		}
	}
	return nil
}

func (a *accounts) addGroup(name string) error {
	if account(a.group, name) != nil {
		return nil
	}
	gid, err := a.free(name)
	if err != nil {
		return err
	}
	a.group += fmt.Sprintf("%s:x:%d:\n", name, gid)
	a.gshadow += name + ":!::\n"
	return nil
}

func (a *accounts) addUser(u User) error {
	group := u.Group
	if group == "" {
		group = u.Name
	}
	for _, name := range append([]string{group}, u.Groups...) {
		if err := a.addGroup(name); err != nil {
			return err
		}
	}
	if account(a.passwd, u.Name) == nil {
		uid, err := a.free(u.Name)
		if err != nil {
			return err
		}
		home, shell := u.Home, u.Shell
		if home == "" {
			home = "/nonexistent"
		}
		if shell == "" {
			shell = "/usr/sbin/nologin"
		}
		a.passwd += fmt.Sprintf("%s:x:%d:%s::%s:%s\n", u.Name, uid, account(a.group, group)[2], home, shell)
		a.shadow += u.Name + ":!:1::::::\n"
	}
	for _, name := range u.Groups {
		a.join(u.Name, name)
	}
	return nil
}

// join makes a user a member of a group.
func (a *accounts) join(user, group string) {
	lines := strings.SplitAfter(a.group, "\n")
	for n, line := range lines {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if fields[0] != group || len(fields) < 4 {
			continue
		}
		for member := range strings.SplitSeq(fields[3], ",") {
			if member == user {
				return
			}
		}
		fields[3] = strings.TrimPrefix(fields[3]+","+user, ",")
		lines[n] = strings.Join(fields, ":") + "\n"
	}
	a.group = strings.Join(lines, "")
}

// free returns an id of the range of system accounts that is nobody's. A user and the
// group of the same name get the same one where that is free.
func (a *accounts) free(name string) (int, error) {
	taken := func(text string, id int) bool {
		for line := range strings.Lines(text) {
			if fields := strings.Split(line, ":"); len(fields) > 2 && fields[2] == strconv.Itoa(id) {
				return true
			}
		}
		return false
	}
	if group := account(a.group, name); len(group) > 2 {
		if id, err := strconv.Atoi(group[2]); err == nil && !taken(a.passwd, id) {
			return id, nil
		}
	}
	for id := 999; id >= 100; id-- {
		if !taken(a.passwd, id) && !taken(a.group, id) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no id is free for %s", name)
}
