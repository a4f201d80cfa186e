package novaconf

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// Setting is the value of an option, and where it was set, in words.
type Setting struct {
	Value string
	Where string
}

// Conf is the configuration that a nova-compute works with. The zero value sets nothing.
type Conf struct {
	values map[name]Setting
	env    map[string]string // of the process
	reader string            // "nova-compute (process 123)", empty when none runs
	files  []string          // that were read, in this order
	dirs   []string          // of those that are not in a directory of *.conf files
	here   bool              // that process has this process's own root
	novas  bool              // others than root, as Nova's user, can write one of files, or put another in its place
}

// Files are the files that were read, in the order in which later ones override.
func (c Conf) Files() []string { return slices.Clone(c.files) }

// IsNovas is true when others than root can write what was read: packages give /etc/nova to Nova's
// user. Then it says where Nova's files are, and not what root may do to other directories.
func (c Conf) IsNovas() bool { return c.novas }

// add adds what a file sets.
func (c *Conf) add(file string, all []assignment) {
	c.files = append(c.files, file)
	for _, a := range all {
		c.values[a.name] = Setting{a.value, c.said(file)}
	}
}

// said names a place as the reader knows it.
func (c *Conf) said(place string) string {
	if c.reader == "" {
		return place
	}
	return place + ", which " + c.reader + " reads"
}

// Host returns [DEFAULT] host; a zero Setting when nothing sets it.
func (c Conf) Host() (Setting, error) { return c.get("host") }

// InstancesPath returns the directory of Nova's instances, absolute and clean; a zero
// Setting when nothing sets it. Nova's default is $state_path/instances
// (nova/conf/compute.py), and packages set state_path to /var/lib/nova
// (nova/conf/paths.py has another default, which is of use to developers alone).
func (c Conf) InstancesPath() (Setting, error) {
	path, err := c.get("instances_path")
	if err != nil || path.Value == "" {
		state, serr := c.get("state_path")
		if err != nil || serr != nil || state.Value == "" {
			return Setting{}, firstOf(err, serr)
		}
		path = Setting{state.Value + "/instances", "state_path in " + state.Where}
	}
	if !filepath.IsAbs(path.Value) || strings.ContainsAny(path.Value, "\n\x00") {
		return Setting{}, fmt.Errorf("%w: instances_path in %s is %q, which is not an absolute path", ErrMalformed, path.Where, path.Value)
	}
	path.Value = filepath.Clean(path.Value)
	return path, nil
}

// ComputeIDPaths returns where Nova looks for its compute_id: in state_path, where it writes it,
// and beside each of its configuration files (nova/virt/node.py, read_local_node_uuid). Where
// no configuration was read, these are the places of the packages.
func (c Conf) ComputeIDPaths() ([]string, error) {
	state, err := c.get("state_path")
	if err != nil {
		return nil, err
	}
	if state.Value == "" {
		state.Value = statePath
	}
	if !filepath.IsAbs(state.Value) || strings.ContainsAny(state.Value, "\n\x00") {
		return nil, fmt.Errorf("%w: state_path in %s is %q, which is not an absolute path", ErrMalformed, state.Where, state.Value)
	}
	dirs := c.dirs
	if len(dirs) == 0 {
		dirs = []string{"/etc/nova"}
	}
	var paths []string
	for _, dir := range append([]string{state.Value}, dirs...) {
		if path := filepath.Join(dir, recover.ComputeIDName); !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// statePath is the default of packages.
const statePath = "/var/lib/nova"

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// libvirtDriver is true unless the configuration names another driver, as that of a fake
// compute service.
func (c Conf) libvirtDriver() bool {
	driver, err := c.get("compute_driver")
	return err != nil || driver.Value == "" || strings.HasPrefix(driver.Value, "libvirt.")
}

// get returns an option of [DEFAULT], with references replaced.
func (c Conf) get(option string) (Setting, error) {
	steps := 100 // more than any real file needs, and a limit for circular references
	found, ok := c.lookup(name{defaultGroup, option})
	if !ok {
		return Setting{}, nil
	}
	var err error
	found.Value, err = c.substitute(found, name{defaultGroup, option}, &steps)
	return found, err
}

// lookup returns an option as it was written. The environment of the process comes before
// its files (cfg.py, _do_get; sources/_environment.py).
func (c Conf) lookup(n name) (Setting, bool) {
	variable := "OS_" + strings.ToUpper(n.group) + "__" + strings.ToUpper(n.option)
	if value, ok := c.env[variable]; ok {
		return Setting{value, c.said(variable + " of the environment")}, true
	}
	s, ok := c.values[n]
	return s, ok
}

// reference is what Python's string.Template replaces with the pattern of oslo.config
// (cfg.py, ConfigOpts.Template): $$, $name, ${name}, where a name may have dots in it. A $
// that begins none of these stays as it is (safe_substitute).
func reference() *regexp.Regexp {
	return regexp.MustCompile(`(?i)\$(?:(\$)|([_a-z][._a-z0-9]*)|\{([_a-z][._a-z0-9]*)\})`)
}

// maxValue bounds a value with everything replaced, in bytes.
const maxValue = 64 << 10

// substitute replaces the references in a value. "\$" means "$$" (cfg.py, _substitute).
func (c Conf) substitute(s Setting, of name, steps *int) (string, error) {
	text := strings.ReplaceAll(s.Value, `\$`, "$$")
	var b strings.Builder
	end := 0
	for _, m := range reference().FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(text[end:m[0]])
		end = m[1]
		if m[2] >= 0 {
			b.WriteByte('$')
			continue
		}
		from, to := m[4], m[5]
		if from < 0 {
			from, to = m[6], m[7]
		}
		if *steps--; *steps < 0 || b.Len() > maxValue {
			return "", fmt.Errorf("%w: %s in %s refers to itself, or to too many other options", ErrMalformed, of.option, s.Where)
		}
		n, found, ok := c.referred(text[from:to], of.group)
		if !ok {
			return "", fmt.Errorf("%w: %s in %s refers to $%s, which no file sets", ErrMalformed, of.option, s.Where, text[from:to])
		}
		value, err := c.substitute(found, n, steps)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
	}
	b.WriteString(text[end:])
	if b.Len() > maxValue {
		return "", fmt.Errorf("%w: %s in %s is longer than %d bytes", ErrMalformed, of.option, s.Where, maxValue)
	}
	return b.String(), nil
}

// referred finds the option that a reference means: group.option, else an option of the
// same group, else one of [DEFAULT] (cfg.py, StrSubWrapper).
func (c Conf) referred(text, group string) (name, Setting, bool) {
	var names []name
	if g, option, dotted := strings.Cut(text, "."); dotted {
		names = append(names, nameOf(g, option))
	}
	names = append(names, nameOf(group, text), name{defaultGroup, text})
	for _, n := range names {
		if s, ok := c.lookup(n); ok {
			return n, s, true
		}
	}
	if text == "state_path" {
		return name{defaultGroup, text}, Setting{Value: statePath}, true
	}
	return name{}, Setting{}, false
}
