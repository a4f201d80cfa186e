package config

import (
	"errors"
	"testing"
)

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
		{"another section's", "[libvirt]\ninstances_path = /wrong\n", ""},
		{"the last one holds", "[DEFAULT]\ninstances_path = /a\n[x]\ny = 1\n[DEFAULT]\ninstances_path = /b\n", "/b"},
		{"a comment", "[DEFAULT]\n#instances_path = /a\n; instances_path = /b\n", ""},
		{"no comment behind a value", "[DEFAULT]\ninstances_path = /a#b\n", "/a#b"},
		{"Windows line ends", "[DEFAULT]\r\ninstances_path = /a\r\n", "/a"},
		{"continued values around it", "[DEFAULT]\nx = 1\n  2\ninstances_path = /a\ny = 1\n\t instances_path = /b\n", "/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, err := parseNovaConf([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			got, err := conf.instancesPath()
			if err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestAMalformedNovaConfIsAnError(t *testing.T) {
	for _, text := range []string{
		"[DEFAULT\n",
		"[DEFAULT]\nno value\n",
		"[DEFAULT]\n= x\n",
		"[DEFAULT]\ninstances_path = $my_ip/x\n",
		"[DEFAULT]\ninstances_path = ${vnc.x}/x\n",
		"[DEFAULT]\ninstances_path = ${broken\n",
		"[DEFAULT]\ninstances_path = /x$\n",
		"[DEFAULT]\ninstances_path = $instances_path\n",
		"[DEFAULT]\ninstances_path = relative\n",
		"[DEFAULT]\ninstances_path = /a\n /b $\n",
	} {
		conf, err := parseNovaConf([]byte(text))
		if err == nil {
			_, err = conf.instancesPath()
		}
		if !errors.Is(err, errNovaConf) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzNovaConf(f *testing.F) {
	f.Add([]byte("[DEFAULT]\ninstances_path = ${state_path}/i\nstate_path = $top\n more\nhost: $$x\n"))
	f.Add([]byte("[DEFAULT]\na=$a$a\ninstances_path=$a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		conf, err := parseNovaConf(data)
		if err != nil {
			return
		}
		if path, err := conf.instancesPath(); err == nil && path != "" && path[0] != '/' {
			t.Errorf("instances path %q", path)
		}
		_, _ = conf.get("host")
	})
}
