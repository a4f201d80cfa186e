package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// load reads a configuration file with this text, on a host without a nova.conf
// unless env or the text names one.
func load(t *testing.T, text string, env map[string]string, args ...string) (Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "os-rescue.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.String("log-level", "info", "")
	flags.String("libvirt-uri", "", "")
	flags.Int("parallel", 2, "")
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(t.Context(), Sources{
		File: file, Env: env, Flags: flags, Hostname: "this-host", novaRoot: t.TempDir(),
		FlagOf: map[string]string{"log.level": "log-level", "libvirt.uri": "libvirt-uri", "parallel": "parallel", "log.format": "no-such-flag"},
	})
}

func TestAFlagOverridesTheEnvironmentAndThatTheFile(t *testing.T) {
	const file = "parallel: 3\nlibvirt: {uri: qemu:///file}\nlog: {level: error}\n"
	env := map[string]string{"OS_RESCUE_PARALLEL": "4", "OS_RESCUE_LIBVIRT_URI": "qemu:///env"}
	for _, c := range []struct {
		name     string
		text     string
		env      map[string]string
		args     []string
		parallel int
		uri      string
		level    zerolog.Level
	}{
		{"defaults", "", nil, nil, 2, "qemu:///system", zerolog.InfoLevel},
		{"file", file, nil, nil, 3, "qemu:///file", zerolog.ErrorLevel},
		{"environment", file, env, nil, 4, "qemu:///env", zerolog.ErrorLevel},
		{"flags", file, env, []string{"--parallel=5", "--libvirt-uri=qemu:///flag", "--log-level=debug"}, 5, "qemu:///flag", zerolog.DebugLevel},
		{"an empty variable is none", file, map[string]string{"OS_RESCUE_PARALLEL": ""}, nil, 3, "qemu:///file", zerolog.ErrorLevel},
		{"a section with nothing in it", "libvirt:\nlog:\n", nil, nil, 2, "qemu:///system", zerolog.InfoLevel},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := load(t, c.text, c.env, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got.Parallel != c.parallel || got.LibvirtURI != c.uri || got.LogLevel != c.level {
				t.Errorf("got parallel %d, uri %s, level %s", got.Parallel, got.LibvirtURI, got.LogLevel)
			}
		})
	}
}

func TestAnInvalidSettingIsAnErrorThatNamesIt(t *testing.T) {
	for _, c := range []struct {
		name, text string
		env        map[string]string
		args       []string
		want       []string
	}{
		{"unknown key", "instance_path: /x\n", nil, nil, []string{"os-rescue.yaml", "unknown key instance_path", "did you mean instances_path?"}},
		{"unknown key in a section", "libvirt: {url: x}\n", nil, nil, []string{"unknown key libvirt.url", "did you mean libvirt.uri?"}},
		{"the user that checked copies", "check: {user: nobody}\n", nil, nil, []string{"check.user is no setting any more", "can be removed"}},
		{"every unknown key", "aa: 1\nbb: 2\n", nil, nil, []string{"unknown key aa", "unknown key bb"}},
		{"a value for a section", "libvirt: qemu:///system\n", nil, nil, []string{"libvirt is a section"}},
		{"a section for a value", "host: {name: x}\n", nil, nil, []string{"unknown key host.name"}},
		{"a list", "host: [a, b]\n", nil, nil, []string{"host", "text"}},
		{"not YAML", "host: [\n", nil, nil, []string{"can't read", "os-rescue.yaml"}},
		{"the same key twice", "host: a\nhost: b\n", nil, nil, []string{"can't read", "host"}},
		{"relative path", "state_dir: var\n", nil, nil, []string{`state_dir is "var"`, "os-rescue.yaml", "absolute"}},
		{"no unit", "watch: 60\n", nil, nil, []string{`watch is "60"`, "unit"}},
		{"too short", "start_timeout: 0s\n", nil, nil, []string{"start_timeout", "from 1s to 1h"}},
		{"percent", "headroom_percent: 120\n", nil, nil, []string{"headroom_percent", "0 to 90"}},
		{"not a percent", "headroom_percent: .nan\n", nil, nil, []string{"headroom_percent", "0 to 90"}},
		{"a number as text", "host: 0123\n", nil, nil, []string{`host is "83"`, "quotes"}},
		{"empty", "libvirt: {uri: ''}\n", nil, nil, []string{"libvirt.uri", "empty"}},
		{"from the environment", "", map[string]string{"OS_RESCUE_PARALLEL": "many"}, nil,
			[]string{`parallel is "many" in OS_RESCUE_PARALLEL of the environment`}},
		{"from a flag", "", nil, []string{"--log-level=loud"}, []string{`log.level is "loud" in the flag --log-level`, "debug"}},
		{"parallel", "parallel: 0\n", nil, nil, []string{"parallel", "1 to 64"}},
		{"mode", "mode: lively\n", nil, nil, []string{`mode is "lively"`, "reboot, live, auto"}},
		{"verify", "verify: half\n", nil, nil, []string{`verify is "half"`, "one of running, full, structure"}},
		{"bandwidth", "live: {bandwidth: fast}\n", nil, nil, []string{`live.bandwidth is "fast"`, "100M or 1GiB"}},
		{"live timeout", "live: {timeout: 200h}\n", nil, nil, []string{"live.timeout", "from 0s to 168h"}},
		{"max pause", "live: {max_pause: 0s}\n", nil, nil, []string{"live.max_pause", "from 1s to 1h"}},
		{"log format", "log: {format: xml}\n", nil, nil, []string{"log.format", "pretty"}},
		{"profile", "owners: {profile: suse}\n", nil, nil, []string{"owners.profile", "redhat"}},
		{"mode not in quotes", "owners: {disk: {mode: 0644}}\n", nil, nil, []string{"owners.disk.mode", `"0644"`}},
		{"mode not octal", "owners: {disk: {mode: '0888'}}\n", nil, nil, []string{"owners.disk.mode", "octal"}},
		{"mode with setuid", "owners: {disk: {mode: '4755'}}\n", nil, nil, []string{"owners.disk.mode"}},
		{"owner kind", "owners: {disks: {user: x}}\n", nil, nil, []string{"unknown key owners.disks.user", "owners.disk.user"}},
		{"no user", "owners: {disk: {user: ''}}\n", nil, nil, []string{"owners.disk.user", "empty"}},
		{"a relative root", "root: proc/1/root\n", nil, nil, []string{"root", "auto", "absolute path"}},
		{"nova.conf named and missing", "nova_conf: /nonexistent/nova.conf\n", nil, nil, []string{"nova_conf", "/nonexistent/nova.conf"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.text, c.env, c.args...)
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func TestOnlyTheDefaultFileMayBeMissing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(t.Context(), Sources{File: missing, Hostname: "h"})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a named file that is missing: %v", err)
	}
	if _, err := Load(t.Context(), Sources{defaultFile: missing, Hostname: "h"}); err != nil {
		t.Errorf("the default file missing: %v", err)
	}
	if _, err := Load(t.Context(), Sources{defaultFile: t.TempDir(), Hostname: "h"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a default file that can't be read: %v", err)
	}
}

func TestConfiguredOwnersOverrideTheProfile(t *testing.T) {
	want := recover.RedHatOwners()
	want.Disk = recover.OwnerRule{User: "qemu", Group: "cinder", Mode: 0o640}
	want.DiskInfo.User = "root"
	got, err := load(t, "owners:\n  profile: redhat\n  disk: {group: cinder, mode: '0640'}\n",
		map[string]string{"OS_RESCUE_OWNERS_DISK_INFO_USER": "root"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Owners); diff != "" {
		t.Error(diff)
	}
	if got, err = load(t, "owners: {profile: kolla}\n", nil); err != nil || got.Owners != recover.KollaOwners() {
		t.Errorf("profile kolla: %+v, %v", got.Owners, err)
	}
	if got, err = load(t, "owners: {profile: auto}\n", nil); err != nil || !got.Owners.Auto {
		t.Errorf("profile auto: %+v, %v", got.Owners, err)
	}
}

func TestHostAndInstancesPathComeFromNovaConfWhenNotSet(t *testing.T) {
	nova := filepath.Join(t.TempDir(), "nova.conf")
	if err := os.WriteFile(nova, []byte("[DEFAULT]\nhost = cmp-7\nstate_path = /srv/nova\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.MkdirAll(filepath.Join(elsewhere, "etc/nova"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(elsewhere, "etc/nova/nova.conf"), []byte("[DEFAULT]\nhost = cmp-8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text, host, path, state string }{
		{"nova.conf", "nova_conf: " + nova + "\n", "cmp-7", "/srv/nova/instances", "/srv/nova"},
		{"set", "nova_conf: " + nova + "\nhost: mine\ninstances_path: /mnt/i/\n", "mine", "/mnt/i", "/srv/nova"},
		{"neither", "", "this-host", "/var/lib/nova/instances", "/var/lib/nova"},
		{"in another root", "root: " + elsewhere + "\n", "cmp-8", "/var/lib/nova/instances", "/var/lib/nova"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := load(t, c.text, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.InstancesPathFrom == "" {
				t.Error("it does not say where instances_path was set")
			}
			if want := filepath.Join(c.state, "compute_id"); got.Settings().ComputeIDPaths[0] != want {
				t.Errorf("compute_id is looked for at %q, want %q", got.ComputeIDPaths, want)
			}
			if got.Host != c.host || got.InstancesPath != c.path {
				t.Errorf("got host %q and path %q, want %q and %q", got.Host, got.InstancesPath, c.host, c.path)
			}
		})
	}
}

func TestTheDefaultsAreThoseOfTheEngine(t *testing.T) {
	got, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := recover.DefaultSettings()
	want.Host = "this-host"
	if diff := cmp.Diff(want, got.Settings()); diff != "" {
		t.Error(diff)
	}
}

func TestConfiguredValuesReachTheEngine(t *testing.T) {
	got, err := load(t, "headroom_percent: 12.5\nfreeze_timeout: 0s\nstart_timeout: 1m30s\nwatch: 0s\n"+
		"state_dir: /s\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := got.Settings()
	if s.Headroom != 0.125 || s.FreezeTimeout != 0 || s.StartTimeout != 90*time.Second || s.Watch != 0 ||
		s.StateDir != "/s" {
		t.Errorf("got %+v", s)
	}
}

func TestABandwidthIsBytesWithOrWithoutAUnit(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "100M": 100_000_000, "100MB": 100_000_000, "1GiB": 1 << 30, "1.5 GiB": 3 << 29,
	} {
		got, err := load(t, "live: {bandwidth: "+text+"}\n", nil)
		if err != nil || got.Live.BytesPerSecond != want {
			t.Errorf("%s: %d, %v", text, got.Live.BytesPerSecond, err)
		}
	}
}

// shipped returns the project's configuration file with every key uncommented.
func shipped(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../../etc/os-rescue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	prose := regexp.MustCompile(`^# \S`)
	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		switch {
		case prose.MatchString(line), line == "#", line == "":
		case strings.HasPrefix(line, "#"):
			lines = append(lines, line[1:])
		default:
			t.Errorf("%q is in force in the shipped file, which must change nothing", line)
		}
	}
	return strings.Join(lines, "\n")
}

func TestTheShippedFileHasEveryKeyAndNoOther(t *testing.T) {
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(shipped(t)), &tree); err != nil {
		t.Fatal(err)
	}
	var got []string
	var walk func(string, any)
	walk = func(prefix string, value any) {
		if m, ok := value.(map[string]any); ok {
			for k, v := range m {
				walk(strings.TrimPrefix(prefix+"."+k, "."), v)
			}
			return
		}
		got = append(got, prefix)
	}
	walk("", tree)
	want := keys()
	sort.Strings(got)
	sort.Strings(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of the code (-) and of the file (+):\n%s", diff)
	}
}

func TestTheShippedFileSaysTheDefaults(t *testing.T) {
	// A nova_conf that is named must exist, which is not what this tests.
	text := strings.Replace(shipped(t), "nova_conf: /etc/nova/nova.conf", "", 1)
	if strings.Contains(text, "nova_conf") {
		t.Fatal("the default of nova_conf is not /etc/nova/nova.conf in the file")
	}
	want, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults of the code (-) and of the file (+):\n%s", diff)
	}
	if want.NovaConf != "/etc/nova/nova.conf" {
		t.Errorf("the default of nova_conf is %s", want.NovaConf)
	}
}

func TestWhatIsNoConfigurationOfRootsIsAnErrorAtOnce(t *testing.T) {
	empty := func(path string) error { return os.WriteFile(path, nil, 0o600) }
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"a FIFO":           {func(path string) error { return unix.Mkfifo(path, 0o600) }, "a FIFO"},
		"a directory":      {func(path string) error { return os.Mkdir(path, 0o700) }, "a directory"},
		"/dev/zero":        {func(path string) error { return os.Symlink("/dev/zero", path) }, "a device"},
		"a dangling link":  {func(path string) error { return os.Symlink("nothing", path) }, "no such file"},
		"an endless file":  {func(path string) error { return errors.Join(empty(path), os.Truncate(path, 1<<40)) }, "too large"},
		"another user's":   {func(path string) error { return errors.Join(empty(path), os.Chown(path, 65534, -1)) }, "user 65534"},
		"all can write it": {func(path string) error { return errors.Join(empty(path), os.Chmod(path, 0o666)) }, "mode is 0666"},
		"a link to another's": {func(path string) error {
			return errors.Join(empty(path+".x"), os.Chown(path+".x", 65534, -1), os.Symlink(path+".x", path))
		}, "user 65534"},
	} {
		path := filepath.Join(t.TempDir(), "os-rescue.yaml")
		if err := c.make(path); err != nil {
			t.Fatal(err)
		}
		for _, sources := range []Sources{{File: path}, {defaultFile: path}} {
			sources.Flags, sources.Hostname, sources.novaRoot = pflag.NewFlagSet("test", pflag.ContinueOnError), "this-host", t.TempDir()
			_, err := Load(t.Context(), sources)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
