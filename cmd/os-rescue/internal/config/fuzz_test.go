package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever a configuration file says is either used as checked, or an error of one kind.
func FuzzConfigurationFile(f *testing.F) {
	for _, text := range []string{"", "parallel: 3\nlibvirt: {uri: qemu:///x}\n", "log:\n", "guard: {min_free_percent: .nan, interval: 1h}",
		"a: &a [x]\nb: [*a, *a]", "parallel: 1e400", "owners: {profile: kolla}", "owners:\n  base: {user: [nova]}", "a.b: 1\na: {b: 2}",
		"\tx: 1", "? [a]\n: b", "1: 2", "root: \"\\0\"", "headroom: -1", "host: !!binary aGk=", "<<: *x", "--- a\n--- b\n", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "nova_conf") { // that reads any file of this machine
			return
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "os-rescue.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(t.Context(), Sources{File: file, Hostname: "this-host", novaRoot: dir})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if c.Host == "" || !filepath.IsAbs(c.InstancesPath) || !filepath.IsAbs(c.StateDir) || c.Parallel < 1 || c.Parallel > 64 ||
			!(c.Headroom >= 0) || !(c.Guard.MinFree >= 0 && c.Guard.MinFree <= 1) {
			t.Fatalf("%q: %+v", text, c)
		}
	})
}
