package config

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/nearest"
	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/novaconf"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// DefaultFile is the configuration file that is read if none is named.
const DefaultFile = "/etc/os-rescue/os-rescue.yaml"

// EnvPrefix begins the names of the environment variables: that of log.level is
// OS_RESCUE_LOG_LEVEL.
const EnvPrefix = "OS_RESCUE_"

// ErrInvalid: a configuration file can't be read, or a value in it, in the
// environment or in a flag is invalid. The text of the error names it.
var ErrInvalid = errors.New("bad configuration")

// Config has the value of every setting, checked.
type Config struct {
	Host          string // never empty
	InstancesPath string // absolute
	// InstancesPathFrom says where InstancesPath was set, in words.
	InstancesPathFrom string
	// InstancesPathIsNovas is true when others than root can write the file that sets it.
	InstancesPathIsNovas bool
	ComputeIDPaths       []string // see recover.Settings
	Root                 string   // absolute, or RootAuto
	StateDir             string   // absolute
	NovaConf             string   // absolute; the file need not exist
	// Notes say what was passed over in reading Nova's configuration, one sentence each.
	Notes         []string
	LibvirtURI    string
	LibvirtRunDir string // absolute
	OSCloud       string // the entry of clouds.yaml; empty for the client's own choice
	NovaRetryFor  time.Duration
	Owners        recover.OwnerTable
	Headroom      float64 // percent
	Parallel      int
	Mode          recover.Mode
	Verify        recover.Verify
	Live          recover.LiveOptions
	FreezeTimeout time.Duration
	StartTimeout  time.Duration
	RebootTimeout time.Duration
	Watch         time.Duration
	Guard         guard.Options // without SignIn
	GuardCloud    string        // the guard's entry of clouds.yaml; empty: it works without Nova
	GuardMetrics  string        // host:port; empty: no metrics are served
	LogLevel      zerolog.Level
	LogFormat     string // auto, pretty or json
}

// RootAuto is the value of Config.Root that leaves it to package hostroot.
const RootAuto = "auto"

// Sources says where to read the configuration from.
type Sources struct {
	File  string            // a named configuration file; empty for the default one, which may be missing
	Env   map[string]string // the environment
	Flags *pflag.FlagSet    // the flags given; nil for none
	// FlagOf names the flag that sets a key: {"log.level": "log-level"}. Flags that
	// are missing in Flags are ignored.
	FlagOf map[string]string
	// Hostname is the host's own name. It counts if nothing else names the host.
	Hostname string
	// Proc is where the kernel shows processes: a running nova-compute tells which files it
	// reads. Empty looks for none.
	Proc string

	defaultFile string // replaces DefaultFile in tests
	novaRoot    string // replaces "/" in tests, for Nova's configuration
}

// Load reads the configuration: the file, overridden by OS_RESCUE_* of the
// environment, overridden by the flags. ErrInvalid names the key, its value and where
// it was set.
func Load(ctx context.Context, src Sources) (Config, error) {
	l, err := newLayers(src)
	if err != nil {
		return Config{}, err
	}
	var c Config
	for _, s := range settings() {
		value, where := l.lookup(s)
		if err := s.set(&c, value); err != nil {
			return Config{}, invalid(s.key, value, where, err)
		}
	}
	c.Guard.MinFree /= 100
	if c.Guard.Lock && c.GuardCloud == "" {
		return Config{}, fmt.Errorf("%w: guard.lock is true, but guard.os_cloud names no credentials to lock with", ErrInvalid)
	}
	if c.Owners, err = ownerTable(l); err != nil {
		return Config{}, err
	}
	if err := c.completeFromNova(ctx, l, src); err != nil {
		return Config{}, err
	}
	return c, nil
}

// invalid is ErrInvalid for the value of a key.
func invalid(key string, value any, where string, err error) error {
	return fmt.Errorf("%w: %s is %q in %s: %w", ErrInvalid, key, fmt.Sprint(value), where, err)
}

// Settings returns the part of the configuration that the engine needs.
func (c Config) Settings() recover.Settings {
	s := recover.DefaultSettings()
	s.Host = c.Host
	s.InstancesPath = c.InstancesPath
	s.InstancesPathFrom = c.InstancesPathFrom
	s.InstancesPathIsNovas = c.InstancesPathIsNovas
	s.ComputeIDPaths = c.ComputeIDPaths
	if c.Root != RootAuto {
		s.Root = c.Root
	}
	s.StateDir = c.StateDir
	s.Owners = c.Owners
	s.Headroom = c.Headroom / 100
	s.FreezeTimeout = c.FreezeTimeout
	s.StartTimeout = c.StartTimeout
	s.RebootTimeout = c.RebootTimeout
	s.Watch = c.Watch
	return s
}

// layers are the file, the environment and the flags, each overriding the one before.
type layers struct {
	v      *viper.Viper
	file   *viper.Viper
	path   string // of the file
	env    map[string]string
	flags  *pflag.FlagSet
	flagOf map[string]string
}

func newLayers(src Sources) (*layers, error) {
	l := &layers{v: viper.New(), file: viper.New(), path: src.File, env: src.Env, flags: src.Flags, flagOf: src.FlagOf}
	if err := l.readFile(src); err != nil {
		return nil, err
	}
	if err := l.v.MergeConfigMap(l.file.AllSettings()); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, l.path, err)
	}
	for _, key := range keys() {
		if value := src.Env[envName(key)]; value != "" {
			if err := l.v.MergeConfigMap(nested(key, value)); err != nil {
				return nil, fmt.Errorf("%w: %s of the environment: %w", ErrInvalid, envName(key), err)
			}
		}
	}
	for key, flag := range src.FlagOf {
		if src.Flags == nil || src.Flags.Lookup(flag) == nil {
			continue
		}
		if err := l.v.BindPFlag(key, src.Flags.Lookup(flag)); err != nil {
			return nil, fmt.Errorf("%w: --%s: %w", ErrInvalid, flag, err)
		}
	}
	for _, s := range settings() {
		l.v.SetDefault(s.key, s.value)
	}
	return l, nil
}

func (l *layers) readFile(src Sources) error {
	named := l.path != ""
	if !named {
		if l.path = src.defaultFile; l.path == "" {
			l.path = DefaultFile
		}
	}
	l.file.SetConfigType("yaml")
	// Root does what it says: nobody else may have written it.
	text, err := plainfile.Read(l.path, plainfile.Rules{Most: mostConfig, Symlinks: true, Ours: true})
	if errors.Is(err, fs.ErrNotExist) && !named && !isLink(l.path) {
		return nil
	}
	if err == nil {
		err = l.file.ReadConfig(bytes.NewReader(text))
	}
	if err != nil {
		return fmt.Errorf("%w: can't read %s: %w", ErrInvalid, l.path, err)
	}
	return l.unknownKeys()
}

// mostConfig is more than a configuration file takes, in bytes.
const mostConfig = 1 << 20

// isLink is true for a symlink: one that leads nowhere is a mistake, and no file that is missing.
func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// unknownKeys returns an error that names every unknown key of the file, each with
// the known key that is nearest to it.
func (l *layers) unknownKeys() error {
	known := make(map[string]bool)
	for _, k := range keys() {
		known[k] = true
	}
	var bad []string
	for _, k := range l.file.AllKeys() {
		if known[k] {
			continue
		}
		if strings.HasPrefix(k, "check.") || k == "check" {
			bad = append(bad, k+" is no setting any more, and can be removed: qemu-img runs as an ID that nothing else has, "+
				"because whoever shares its user could write to what it checks")
			continue
		}
		if section(k) && l.file.Get(k) == nil { // "libvirt:" with nothing below it
			continue
		}
		if section(k) {
			bad = append(bad, fmt.Sprintf("%s is a section, not a value", k))
			continue
		}
		bad = append(bad, fmt.Sprintf("unknown key %s (did you mean %s?)", k, nearest.Sort(k, keys())[0]))
	}
	if len(bad) == 0 {
		return nil
	}
	sort.Strings(bad)
	return fmt.Errorf("%w: %s: %s", ErrInvalid, l.path, strings.Join(bad, "; "))
}

// lookup returns the value that counts, and where it was set, in words.
func (l *layers) lookup(s setting) (value any, where string) {
	switch {
	case l.flagOf[s.key] != "" && l.flags != nil && l.flags.Changed(l.flagOf[s.key]):
		where = "the flag --" + l.flagOf[s.key]
	case l.inEnv(s.key):
		where = envName(s.key) + " of the environment"
	case l.file.Get(s.key) != nil:
		where = l.path
	default:
		// Not from l.v, which would return the default of a bound flag.
		return s.value, "the defaults"
	}
	return l.v.Get(s.key), where
}

// inEnv is false for an empty variable.
func (l *layers) inEnv(key string) bool { return l.env[envName(key)] != "" }

// isSet is true if a flag, the environment or the file sets the key.
func (l *layers) isSet(key string) bool {
	flag := l.flagOf[key]
	return flag != "" && l.flags != nil && l.flags.Changed(flag) || l.inEnv(key) || l.file.Get(key) != nil
}

// completeFromNova takes missing settings from Nova's configuration, or else from the host.
func (c *Config) completeFromNova(ctx context.Context, l *layers, src Sources) error {
	o := novaconf.Options{Proc: src.Proc, Root: cmp.Or(src.novaRoot, "/")}
	if l.isSet("nova_conf") {
		o.File, o.Root = c.NovaConf, "/"
	} else if c.Root != RootAuto {
		o.Root = c.Root
	}
	nova, notes, err := novaconf.Read(ctx, o)
	if errors.Is(err, fs.ErrNotExist) && o.File == "" {
		err = nil // a purge of the packages removes it
	}
	if err != nil {
		return fmt.Errorf("%w: nova_conf: %w", ErrInvalid, err)
	}
	c.Notes = notes
	if c.InstancesPath != "" {
		_, c.InstancesPathFrom = l.lookup(setting{key: "instances_path"})
	} else {
		path, err := nova.InstancesPath()
		if err != nil {
			return fmt.Errorf("%w: %w: set instances_path in %s", ErrInvalid, err, l.path)
		}
		c.InstancesPath, c.InstancesPathFrom = path.Value, path.Where
		c.InstancesPathIsNovas = nova.IsNovas() && path.Value != recover.DefaultSettings().InstancesPath
	}
	if c.InstancesPath == "" {
		d := recover.DefaultSettings()
		c.InstancesPath, c.InstancesPathFrom = d.InstancesPath, d.InstancesPathFrom
	}
	if c.ComputeIDPaths, err = nova.ComputeIDPaths(); err != nil {
		c.Notes = append(c.Notes, fmt.Sprintf("Nova's %s is looked for where packages have it: %v", recover.ComputeIDName, err))
		c.ComputeIDPaths = recover.DefaultSettings().ComputeIDPaths
	}
	if c.Host == "" {
		host, err := nova.Host()
		if err != nil {
			return fmt.Errorf("%w: %w: set host in %s", ErrInvalid, err, l.path)
		}
		c.Host = host.Value
	}
	if c.Host == "" {
		c.Host = src.Hostname
	}
	if c.Host == "" {
		return fmt.Errorf("%w: this host has no name: set host in %s", ErrInvalid, l.path)
	}
	return nil
}

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// section is true for a key that has others below it.
func section(key string) bool {
	for _, k := range keys() {
		if strings.HasPrefix(k, key+".") {
			return true
		}
	}
	return false
}

func nested(key string, value any) map[string]any {
	parts := strings.Split(key, ".")
	for i := len(parts) - 1; i > 0; i-- {
		value = map[string]any{parts[i]: value}
	}
	return map[string]any{parts[0]: value}
}

// Environ turns the result of os.Environ into a map. If a name occurs twice, the first
// one counts, as in getenv(3).
func Environ(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if _, ok := m[name]; !ok {
			m[name] = value
		}
	}
	return m
}

// Hostname is the host's own name, or empty.
func Hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
