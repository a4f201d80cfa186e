package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// errNovaConf: nova.conf is malformed.
var errNovaConf = errors.New("not understood")

// novaConf is the [DEFAULT] section of a nova.conf, its values as written.
//
// The format is that of oslo.config, which differs from other INI formats
// (oslo_config/iniparser.py): lines that begin with white space continue the value
// before them, comments begin with # or ; in the first column only, a pair of quotes
// around a value is dropped, the last of two equal keys counts, and $name, ${name}
// and $$ are replaced when a value is used (oslo_config/cfg.py).
type novaConf map[string]string

// readNovaConf reads a nova.conf. fs.ErrNotExist if there is none.
func readNovaConf(path string) (novaConf, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	conf, err := parseNovaConf(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return conf, nil
}

func parseNovaConf(data []byte) (novaConf, error) {
	conf := novaConf{}
	section, key := "", ""
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimRight(lines.Text(), " \t\r")
		switch {
		case line == "":
			key = ""
		case line[0] == '#' || line[0] == ';':
		case line[0] == ' ' || line[0] == '\t':
			if section == "DEFAULT" && key != "" {
				conf[key] += "\n" + strings.TrimSpace(line)
			}
		case line[0] == '[':
			if !strings.HasSuffix(line, "]") {
				return nil, fmt.Errorf("line %d: %w: a section without its ]", number, errNovaConf)
			}
			section, key = line[1:len(line)-1], ""
		default:
			at := strings.IndexAny(line, "=:")
			if at <= 0 {
				return nil, fmt.Errorf("line %d: %w: neither a section nor a key with a value", number, errNovaConf)
			}
			key = strings.TrimSpace(line[:at])
			if section == "DEFAULT" {
				conf[key] = unquote(strings.TrimSpace(line[at+1:]))
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNovaConf, err)
	}
	return conf, nil
}

func unquote(s string) string {
	if len(s) > 1 && s[0] == s[len(s)-1] && (s[0] == '"' || s[0] == '\'') {
		return s[1 : len(s)-1]
	}
	return s
}

// get returns the value of a key, with references replaced; empty if the key is
// missing.
func (n novaConf) get(key string) (string, error) {
	steps := 100 // more than any real file needs, and a limit for circular references
	return n.expand(key, &steps)
}

func (n novaConf) expand(key string, steps *int) (string, error) {
	if *steps--; *steps < 0 {
		return "", fmt.Errorf("%w: %s refers to itself, or to too many other keys", errNovaConf, key)
	}
	value := n[key]
	var b strings.Builder
	for value != "" {
		before, after, found := strings.Cut(value, "$")
		b.WriteString(before)
		if !found {
			break
		}
		if strings.HasPrefix(after, "$") {
			b.WriteByte('$')
			value = after[1:]
			continue
		}
		name, rest := reference(after)
		if name == "" {
			return "", fmt.Errorf("%w: %s has a $ that names nothing", errNovaConf, key)
		}
		if _, ok := n[name]; !ok {
			return "", fmt.Errorf("%w: %s refers to $%s, which the file does not set", errNovaConf, key, name)
		}
		part, err := n.expand(name, steps)
		if err != nil {
			return "", err
		}
		b.WriteString(part)
		value = rest
	}
	return b.String(), nil
}

// reference splits the text after a $ into the name and the rest.
func reference(s string) (name, rest string) {
	if strings.HasPrefix(s, "{") {
		name, rest, found := strings.Cut(s[1:], "}")
		if !found {
			return "", s
		}
		return name, rest
	}
	end := strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

// instancesPath returns the directory of Nova's instances; empty if the file does not
// set it. Nova's default is $state_path/instances (nova/conf/paths.py and
// nova/conf/compute.py).
func (n novaConf) instancesPath() (string, error) {
	conf := n
	if _, ok := n["state_path"]; !ok {
		conf = novaConf{"state_path": "/var/lib/nova"}
		for k, v := range n {
			conf[k] = v
		}
	}
	path, err := conf.get("instances_path")
	if err != nil {
		return "", err
	}
	if _, ok := n["state_path"]; ok && path == "" {
		state, err := conf.get("state_path")
		if err != nil {
			return "", err
		}
		path = state + "/instances"
	}
	if path == "" {
		return "", nil
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%w: instances_path is %q, which is not an absolute path", errNovaConf, path)
	}
	return filepath.Clean(path), nil
}
