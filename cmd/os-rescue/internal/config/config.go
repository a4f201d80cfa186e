package config

import (
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
	"github.com/os-rescue/os-rescue/recover"
)

// DefaultFile is the configuration file that is read when none is named.
const DefaultFile = "/etc/os-rescue/os-rescue.yaml"

// EnvPrefix is how the environment variables begin: log.level is
// OS_RESCUE_LOG_LEVEL.
const EnvPrefix = "OS_RESCUE_"

// ErrInvalid: a configuration file can't be read, or something in it, in the
// environment or in a flag is not what it should be. The error's text names it.
var ErrInvalid = errors.New("bad configuration")

// Config is what is set, every value checked.
type Config struct {
	Host          string // never empty
	InstancesPath string // absolute
	StateDir      string // absolute
	NovaConf      string // absolute; the file need not exist
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
	CheckUser     string
	CheckGroup    string
	Guard         recover.GuardOptions // without SignIn
	GuardCloud    string               // the guard's entry of clouds.yaml; empty: it works without Nova
	GuardMetrics  string               // host:port; empty: no metrics are served
	LogLevel      zerolog.Level
	LogFormat     string // auto, pretty or json
}

// Sources says where to read from.
type Sources struct {
	File  string            // a named configuration file; empty for the default one, which may be missing
	Env   map[string]string // the environment
	Flags *pflag.FlagSet    // the flags given; nil for none
	// FlagOf names the flag that sets a key: {"log.level": "log-level"}. A flag
	// that Flags does not have is passed over.
	FlagOf map[string]string
	// Hostname is the host's own name, for when nothing else names it.
	Hostname string

	defaultFile string // DefaultFile, but in tests
}

// Load reads the configuration: the file, overridden by OS_RESCUE_* of the
// environment, overridden by the flags. ErrInvalid names what is wrong, where.
func Load(src Sources) (Config, error) {
	l, err := newLayers(src)
	if err != nil {
		return Config{}, err
	}
	var c Config
	for _, s := range settings() {
		value, where := l.lookup(s)
		if err := s.set(&c, value); err != nil {
			return Config{}, fmt.Errorf("%w: %s is %q in %s: %w", ErrInvalid, s.key, fmt.Sprint(value), where, err)
		}
	}
	c.Guard.MinFree /= 100
	if c.Guard.Lock && c.GuardCloud == "" {
		return Config{}, fmt.Errorf("%w: guard.lock is true, and guard.os_cloud names no credentials to lock with", ErrInvalid)
	}
	if c.Owners, err = ownerTable(l); err != nil {
		return Config{}, err
	}
	if err := c.completeFromNova(l, src.Hostname); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Settings is the configuration as the engine takes it.
func (c Config) Settings() recover.Settings {
	s := recover.DefaultSettings()
	s.Host = c.Host
	s.InstancesPath = c.InstancesPath
	s.StateDir = c.StateDir
	s.Owners = c.Owners
	s.Headroom = c.Headroom / 100
	s.FreezeTimeout = c.FreezeTimeout
	s.StartTimeout = c.StartTimeout
	s.RebootTimeout = c.RebootTimeout
	s.Watch = c.Watch
	s.CheckUser = c.CheckUser
	s.CheckGroup = c.CheckGroup
	return s
}

// layers are the file, the environment and the flags, one over the other.
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
	l.file.SetConfigFile(l.path)
	l.file.SetConfigType("yaml")
	err := l.file.ReadInConfig()
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: can't read %s: %w", ErrInvalid, l.path, err)
	}
	return l.unknownKeys()
}

// unknownKeys returns an error that names every key of the file that is none of
// os-rescue's, and for each the one that was probably meant.
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

// lookup returns the value that holds, and in words where it was set.
func (l *layers) lookup(s setting) (value any, where string) {
	switch {
	case l.flagOf[s.key] != "" && l.flags != nil && l.flags.Changed(l.flagOf[s.key]):
		where = "the flag --" + l.flagOf[s.key]
	case l.inEnv(s.key):
		where = envName(s.key) + " of the environment"
	case l.file.Get(s.key) != nil:
		where = l.path
	default:
		// Not v's: it would return a bound flag's default.
		return s.value, "the defaults"
	}
	return l.v.Get(s.key), where
}

// inEnv is false for a variable that is there but empty.
func (l *layers) inEnv(key string) bool { return l.env[envName(key)] != "" }

// isSet is true when the key was given anywhere.
func (l *layers) isSet(key string) bool {
	flag := l.flagOf[key]
	return flag != "" && l.flags != nil && l.flags.Changed(flag) || l.inEnv(key) || l.file.Get(key) != nil
}

// completeFromNova takes what is not set from nova.conf, and else from the host.
func (c *Config) completeFromNova(l *layers, hostname string) error {
	nova, err := readNovaConf(c.NovaConf)
	if errors.Is(err, fs.ErrNotExist) && !l.isSet("nova_conf") {
		nova, err = novaConf{}, nil // a purge takes it along
	}
	if err != nil {
		return fmt.Errorf("%w: nova_conf: %w", ErrInvalid, err)
	}
	if c.InstancesPath == "" {
		if c.InstancesPath, err = nova.instancesPath(); err != nil {
			return fmt.Errorf("%w: %s: %w: set instances_path in %s", ErrInvalid, c.NovaConf, err, l.path)
		}
	}
	if c.InstancesPath == "" {
		c.InstancesPath = recover.DefaultSettings().InstancesPath
	}
	if c.Host == "" {
		if c.Host, err = nova.get("host"); err != nil {
			return fmt.Errorf("%w: %s: %w: set host in %s", ErrInvalid, c.NovaConf, err, l.path)
		}
	}
	if c.Host == "" {
		c.Host = hostname
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

// Environ makes a map of what os.Environ returns. Of a name that is there twice
// the first one holds, as for getenv.
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
