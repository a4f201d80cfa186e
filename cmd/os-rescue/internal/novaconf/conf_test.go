package novaconf

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// confOf is the configuration of one file with that text.
func confOf(text string) (Conf, error) {
	c := Conf{values: map[name]Setting{}}
	all, err := parse([]byte(text))
	c.add("f", all)
	return c, err
}

func TestInstancesPathOfNovaConf(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty file", "", ""},
		{"set", "[DEFAULT]\ninstances_path = /srv/i\n", "/srv/i"},
		{"a colon", "[DEFAULT]\ninstances_path: /srv/i\n", "/srv/i"},
		{"quoted", "[DEFAULT]\ninstances_path = \"/srv/i\"\n", "/srv/i"},
		{"state_path alone", "[DEFAULT]\nstate_path=/srv/nova\n", "/srv/nova/instances"},
		{"a variable", "[DEFAULT]\ninstances_path = $state_path/i\nstate_path = /srv\n", "/srv/i"},
		{"a variable in braces", "[DEFAULT]\ninstances_path = ${state_path}x/i\nstate_path = /srv\n", "/srvx/i"},
		{"Nova's own default of a variable", "[DEFAULT]\ninstances_path = $state_path/i\n", "/var/lib/nova/i"},
		{"two steps", "[DEFAULT]\ninstances_path = $state_path/i\nstate_path = $top/nova\ntop = /t\n", "/t/nova/i"},
		{"a dollar sign", "[DEFAULT]\ninstances_path = /a$$b\n", "/a$b"},
		{"an escaped dollar sign", "[DEFAULT]\nx = /no\ninstances_path = /a\\$x\n", "/a$x"},
		{"a dollar sign that begins nothing", "[DEFAULT]\ninstances_path = /x$/${broken/$1\n", "/x$/${broken/$1"},
		{"another section's variable", "[Paths]\ntop = /p\n[DEFAULT]\ninstances_path = ${paths.top}/i\n", "/p/i"},
		{"a variable of the other's own section",
			"[paths]\ntop = $base/p\nbase = /b\n[DEFAULT]\nbase = /d\ninstances_path = $paths.top\n", "/b/p"},
		{"a variable of DEFAULT in another section", "[paths]\ntop = $base/p\n[DEFAULT]\nbase = /d\ninstances_path = $paths.top\n", "/d/p"},
		{"another section's", "[libvirt]\ninstances_path = /wrong\n", ""},
		{"default is not DEFAULT", "[default]\ninstances_path = /wrong\n", ""},
		{"an option in capitals is another", "[DEFAULT]\nINSTANCES_PATH = /wrong\n", ""},
		{"the last one holds", "[DEFAULT]\ninstances_path = /a\n[x]\ny = 1\n[DEFAULT]\ninstances_path = /b\n", "/b"},
		{"a comment", "[DEFAULT]\n#instances_path = /a\n; instances_path = /b\n", ""},
		{"no comment behind a value", "[DEFAULT]\ninstances_path = /a#b\n", "/a#b"},
		{"Windows line ends", "[DEFAULT]\r\ninstances_path = /a\r\n", "/a"},
		{"continued values around it", "[DEFAULT]\nx = 1\n  2\ninstances_path = /a\ny = 1\n\t instances_path = /b\n", "/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, err := confOf(c.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := conf.InstancesPath()
			if err != nil || got.Value != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
			if got.Value != "" && !strings.HasSuffix(got.Where, "f") {
				t.Errorf("it does not say that %q is from the file: %q", got.Value, got.Where)
			}
		})
	}
}

func TestTheComputeIDIsInStatePathOrBesideTheConfiguration(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{
		"etc/nova/nova.conf": "[DEFAULT]\nstate_path = $top/nova\n", "etc/nova/nova.conf.d/a.conf": "[DEFAULT]\ntop = /srv\n",
		"usr/share/nova/nova-dist.conf": "", "etc/nova/nova-compute.conf": "",
	})
	c, _, err := Read(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	paths, err := c.ComputeIDPaths()
	want := []string{"/srv/nova/compute_id", "/usr/share/nova/compute_id", "/etc/nova/compute_id"}
	if err != nil || !slices.Equal(paths, want) {
		t.Errorf("%q, %v", paths, err)
	}
	paths, err = Conf{}.ComputeIDPaths()
	if want := []string{"/var/lib/nova/compute_id", "/etc/nova/compute_id"}; err != nil || !slices.Equal(paths, want) {
		t.Errorf("without a configuration: %q, %v", paths, err)
	}
	if c, err = confOf("[DEFAULT]\nstate_path = nova\n"); err != nil {
		t.Fatal(err)
	}
	if paths, err = c.ComputeIDPaths(); !errors.Is(err, ErrMalformed) {
		t.Errorf("a relative one: %q, %v", paths, err)
	}
}

func TestAMalformedNovaConfIsAnError(t *testing.T) {
	for _, text := range []string{
		"[DEFAULT\n",
		"[]\n",
		"a = b\n",
		"[DEFAULT]\nno value\n",
		"[DEFAULT]\n= x\n",
		"[DEFAULT]\n continued\n",
		"[DEFAULT]\na = b\n# comment\n continued\n",
		"[DEFAULT]\ninstances_path = $my_ip/x\n",
		"[DEFAULT]\ninstances_path = ${vnc.x}/x\n",
		"[DEFAULT]\ninstances_path = $instances_path\n",
		"[DEFAULT]\ninstances_path = relative\n",
		"[DEFAULT]\ninstances_path = /a\n /b $\n",
		"[DEFAULT]\na=" + strings.Repeat("x", 60_000) + "\ninstances_path = /$a$a\n",
	} {
		conf, err := confOf(text)
		if err == nil {
			_, err = conf.InstancesPath()
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%.60q: got %v", text, err)
		}
	}
}

func TestTheEnvironmentOfTheProcessComesBeforeItsFiles(t *testing.T) {
	c, err := confOf("[DEFAULT]\nhost = file\nstate_path = $top\ntop = /file\n")
	if err != nil {
		t.Fatal(err)
	}
	c.reader = "nova-compute (process 7)"
	c.env = map[string]string{"OS_DEFAULT__HOST": "env", "OS_DEFAULT__TOP": "/env"}
	host, err := c.Host()
	if err != nil || host.Value != "env" || !strings.Contains(host.Where, "OS_DEFAULT__HOST") || !strings.Contains(host.Where, "process 7") {
		t.Errorf("%+v, %v", host, err)
	}
	if path, err := c.InstancesPath(); err != nil || path.Value != "/env/instances" {
		t.Errorf("%+v, %v", path, err)
	}
}

func FuzzNovaConf(f *testing.F) {
	f.Add([]byte("[DEFAULT]\ninstances_path = ${state_path}/i\nstate_path = $top\n more\nhost: $$x\n"))
	f.Add([]byte("[DEFAULT]\na=$a$a\ninstances_path=$a\n"))
	f.Add([]byte("[a]\nb=\\$\n[DEFAULT]\ninstances_path=/$a.b/${a.b}$\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		conf, err := confOf(string(data))
		if err != nil {
			return
		}
		if path, err := conf.InstancesPath(); err == nil && path.Value != "" && filepath.Clean(path.Value) != path.Value {
			t.Errorf("instances path %q", path)
		}
		_, _ = conf.Host()
		_, _, _ = named(strings.Fields(string(data)), "/")
	})
}
