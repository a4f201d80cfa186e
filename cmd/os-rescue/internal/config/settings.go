package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
)

// setting is one key of the configuration file.
type setting struct {
	key   string
	value string // the default, as documented in the shipped file
	set   func(c *Config, value any) error
}

// settings returns every key except those of the owner table, which are in owners.go.
func settings() []setting {
	d := recover.DefaultSettings()
	return []setting{
		{"host", "", text(func(c *Config) *string { return &c.Host })},
		{"instances_path", "", optionalPath(func(c *Config) *string { return &c.InstancesPath })},
		{"root", RootAuto, root},
		{"state_dir", d.StateDir, path(func(c *Config) *string { return &c.StateDir })},
		{"nova_conf", "/etc/nova/nova.conf", path(func(c *Config) *string { return &c.NovaConf })},
		{"libvirt.uri", "qemu:///system", required(func(c *Config) *string { return &c.LibvirtURI })},
		{"libvirt.run_dir", "/run/libvirt/qemu", path(func(c *Config) *string { return &c.LibvirtRunDir })},
		{"os_cloud", "", text(func(c *Config) *string { return &c.OSCloud })},
		{"nova.retry_for", "1m", duration(func(c *Config) *time.Duration { return &c.NovaRetryFor }, time.Second)},
		{"headroom_percent", number(d.Headroom * 100), percent(func(c *Config) *float64 { return &c.Headroom })},
		{"parallel", "2", count(func(c *Config) *int { return &c.Parallel })},
		{"mode", string(recover.ModeReboot), oneOf(func(c *Config) *recover.Mode { return &c.Mode },
			recover.ModeReboot, recover.ModeLive, recover.ModeAuto)},
		{"verify", string(recover.VerifyDefault), oneOf(func(c *Config) *recover.Verify { return &c.Verify },
			recover.VerifyDefault, recover.VerifyRunning, recover.VerifyFull, recover.VerifyStructure)},
		{"live.max_pause", short(recover.DefaultMaxPause), duration(func(c *Config) *time.Duration { return &c.Live.MaxPause }, time.Second)},
		{"live.bandwidth", "0", size(func(c *Config) *uint64 { return &c.Live.BytesPerSecond })},
		{"live.timeout", "0s", within(func(c *Config) *time.Duration { return &c.Live.Timeout }, 0, 7*24*time.Hour)},
		{"freeze_timeout", short(d.FreezeTimeout), duration(func(c *Config) *time.Duration { return &c.FreezeTimeout }, 0)},
		{"start_timeout", short(d.StartTimeout), duration(func(c *Config) *time.Duration { return &c.StartTimeout }, time.Second)},
		{"reboot_timeout", short(d.RebootTimeout), duration(func(c *Config) *time.Duration { return &c.RebootTimeout }, time.Second)},
		{"watch", short(d.Watch), duration(func(c *Config) *time.Duration { return &c.Watch }, 0)},
		{"guard.interval", short(guard.DefaultInterval),
			duration(func(c *Config) *time.Duration { return &c.Guard.Interval }, time.Second)},
		{"guard.grace", short(guard.DefaultGrace), within(func(c *Config) *time.Duration { return &c.Guard.Grace }, 0, 90*24*time.Hour)},
		{"guard.min_free_percent", number(guard.DefaultMinFree * 100), percent(func(c *Config) *float64 { return &c.Guard.MinFree })},
		{"guard.lock", "false", flag(func(c *Config) *bool { return &c.Guard.Lock })},
		{"guard.os_cloud", "", text(func(c *Config) *string { return &c.GuardCloud })},
		{"guard.metrics", "", address(func(c *Config) *string { return &c.GuardMetrics })},
		{"log.level", "info", level},
		{"log.format", "auto", oneOf(func(c *Config) *string { return &c.LogFormat }, "auto", "pretty", "json")},
	}
}

// keys returns every key that a configuration file may have.
func keys() []string {
	var all []string
	for _, s := range settings() {
		all = append(all, s.key)
	}
	return append(all, ownerKeys()...)
}

func text(field func(*Config) *string) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, err := str(value)
		*field(c) = s
		return err
	}
}

func required(field func(*Config) *string) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, err := str(value)
		if err == nil && s == "" {
			err = errors.New("it must not be empty")
		}
		*field(c) = s
		return err
	}
}

func optionalPath(field func(*Config) *string) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, err := str(value)
		if err != nil || s == "" {
			return err
		}
		return absolute(s, field(c))
	}
}

func path(field func(*Config) *string) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, err := str(value)
		if err != nil {
			return err
		}
		return absolute(s, field(c))
	}
}

// root accepts an absolute path, or "auto".
func root(c *Config, value any) error {
	s, err := str(value)
	if err != nil || s == RootAuto {
		c.Root = s
		return err
	}
	if err := absolute(s, &c.Root); err != nil {
		return errors.New(`it must be auto, or an absolute path like / or /proc/PID/root`)
	}
	return nil
}

func absolute(s string, to *string) error {
	if !filepath.IsAbs(s) {
		return errors.New("it must be an absolute path")
	}
	*to = filepath.Clean(s)
	return nil
}

func percent(field func(*Config) *float64) func(*Config, any) error {
	return func(c *Config, value any) error {
		f, err := strconv.ParseFloat(strings.TrimSpace(fmt.Sprint(value)), 64)
		if err != nil || !(f >= 0 && f <= 90) {
			return errors.New("it must be a number from 0 to 90")
		}
		*field(c) = f
		return nil
	}
}

func flag(field func(*Config) *bool) func(*Config, any) error {
	return func(c *Config, value any) error {
		b, err := strconv.ParseBool(strings.TrimSpace(fmt.Sprint(value)))
		if err != nil {
			return errors.New("it must be true or false")
		}
		*field(c) = b
		return nil
	}
}

// address accepts host:port, or :port for every address of the host.
func address(field func(*Config) *string) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, err := str(value)
		if err != nil || s == "" {
			return err
		}
		if _, port, err := net.SplitHostPort(s); err != nil || port == "" {
			return errors.New("it must be an address with a port, like 127.0.0.1:9765")
		}
		*field(c) = s
		return nil
	}
}

func count(field func(*Config) *int) func(*Config, any) error {
	return func(c *Config, value any) error {
		n, err := strconv.Atoi(strings.TrimSpace(fmt.Sprint(value)))
		if err != nil || n < 1 || n > 64 {
			return errors.New("it must be a whole number from 1 to 64")
		}
		*field(c) = n
		return nil
	}
}

func duration(field func(*Config) *time.Duration, least time.Duration) func(*Config, any) error {
	return within(field, least, time.Hour)
}

func within(field func(*Config) *time.Duration, least, most time.Duration) func(*Config, any) error {
	return func(c *Config, value any) error {
		d, err := time.ParseDuration(strings.TrimSpace(fmt.Sprint(value)))
		if err != nil {
			return errors.New("it must be a time with its unit, like 30s or 1m30s")
		}
		if d < least || d > most {
			return fmt.Errorf("it must be from %s to %s", short(least), short(most))
		}
		*field(c) = d
		return nil
	}
}

// size accepts bytes, with or without a unit: 100M, 1GiB.
func size(field func(*Config) *uint64) func(*Config, any) error {
	return func(c *Config, value any) error {
		n, err := humanize.ParseBytes(strings.TrimSpace(fmt.Sprint(value)))
		if err != nil {
			return errors.New("it must be a number of bytes, like 100M or 1GiB; 0 is no limit")
		}
		*field(c) = n
		return nil
	}
}

func oneOf[T ~string](field func(*Config) *T, choices ...T) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, err := str(value)
		if err != nil {
			return err
		}
		if !slices.Contains(choices, T(s)) {
			var words []string
			for _, choice := range choices {
				if choice != "" {
					words = append(words, string(choice))
				}
			}
			return fmt.Errorf("it must be one of %s", strings.Join(words, ", "))
		}
		*field(c) = T(s)
		return nil
	}
}

func level(c *Config, value any) error {
	for _, l := range []zerolog.Level{zerolog.TraceLevel, zerolog.DebugLevel, zerolog.InfoLevel, zerolog.WarnLevel, zerolog.ErrorLevel} {
		if fmt.Sprint(value) == l.String() {
			c.LogLevel = l
			return nil
		}
	}
	return errors.New("it must be one of trace, debug, info, warn, error")
}

// str accepts only text: YAML reads 0123 as the number 83, which nobody means.
func str(value any) (string, error) {
	s, ok := value.(string)
	if !ok {
		return "", errors.New("it must be text: put it in quotes")
	}
	return s, nil
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// short writes 1m0s as 1m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
