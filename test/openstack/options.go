package openstack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Options say where a bed is and how it is brought up.
type Options struct {
	Dir      string    // of its state; $BED_DIR or DefaultDir when empty
	Cache    string    // for the guest's image, below Dir; a directory there when empty
	Progress io.Writer // is told what is done; nobody when nil
	// Bound has a bed that was not up end with the calling process, even if that is
	// killed.
	Bound bool

	// What a bed is like lasts until it is purged: an Up that says nothing changes
	// nothing.

	// FakeComputes is how many compute services there are beside the real one,
	// each a host of its own with Nova's fake driver: FakeHost(1) and so on. A bed
	// that has more keeps them.
	FakeComputes int
	// NovaConf is added to the end of nova.conf: sections and their options, of which
	// the last one holds. Nova's services are restarted for it.
	NovaConf string
}

func (o Options) dir() string {
	dir := o.Dir
	if dir == "" {
		dir = os.Getenv(DirVariable)
	}
	if dir == "" {
		dir = DefaultDir
	}
	if absolute, err := filepath.Abs(dir); err == nil {
		return absolute
	}
	return dir
}

// lasting are the options that are kept with the bed.
type lasting struct {
	FakeComputes int    `json:"fake_computes"`
	NovaConf     string `json:"nova_conf"`
}

func lastingFile(dir string) string { return filepath.Join(dir, "options.json") }

// readLasting returns what is kept in a bed's directory, nothing when it is new.
func readLasting(dir string) (l lasting, err error) {
	text, err := os.ReadFile(lastingFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return lasting{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return lasting{}, fmt.Errorf("openstack: the options of the bed: %w", err)
	}
	return l, nil
}

func (l lasting) write(dir string) error {
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(lastingFile(dir), append(text, '\n'), 0o644)
}

// with returns what it is when options are given as well.
func (l lasting) with(o Options) lasting {
	l.FakeComputes = max(l.FakeComputes, o.FakeComputes)
	if o.NovaConf != "" {
		l.NovaConf = o.NovaConf
	}
	return l
}

// defaultSetting returns an option's value in the section DEFAULT of a configuration
// file's text: the last one, as oslo.config has it; empty when it is not there.
func defaultSetting(text, option string) (value string) {
	in := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			continue // it goes on with the one before
		}
		if strings.HasPrefix(line, "[") {
			in = strings.Trim(line, "[]")
			continue
		}
		if name, given, found := strings.Cut(line, "="); found && in == "DEFAULT" && strings.TrimSpace(name) == option {
			value = strings.TrimSpace(given)
		}
	}
	return value
}
