package nova

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// bomb is a clouds.yaml of a few lines that means 10^n words.
func bomb(n int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 x\n")
	for i := range n {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	fmt.Fprintf(&b, "clouds: {a: {auth: *a%d}}\n", n)
	return b.String()
}

func TestCloudsThatGrowByAliasesAreRefused(t *testing.T) {
	if clouds, err := parseClouds([]byte(bomb(3)), "clouds"); err != nil || clouds["a"] == nil {
		t.Errorf("a small one: %v, %v", clouds, err)
	}
	if clouds, err := parseClouds([]byte(bomb(12)), "clouds"); !errors.Is(err, errTooMuch) || clouds != nil {
		t.Errorf("%v, error %v", clouds, err)
	}
}

func FuzzClouds(f *testing.F) {
	f.Add([]byte("clouds:\n  a: {auth: {auth_url: http://k, password: 0123}, regions: [{name: r, values: {verify: 'no'}}]}\n"))
	f.Add([]byte("clouds:\n  a: &x {profile: p, interface: [public], insecure: yes}\n  b: {<<: *x, auth: }\n"))
	f.Add([]byte("clouds: {a: }\n---\nclouds: &c {a: *c}"))
	f.Add([]byte(bomb(3)))
	dir := f.TempDir()
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME"} {
		f.Setenv(name, dir)
	}
	f.Chdir(dir)
	f.Fuzz(func(_ *testing.T, text []byte) {
		all, err := parseClouds(text, "clouds")
		if err != nil {
			return
		}
		file := cloudsFile{path: filepath.Join(dir, "clouds.yaml"), rules: anywhere(), clouds: all}
		for n, name := range file.names() {
			if n < 5 {
				_, _ = cloudNamed(file, name)
			}
		}
	})
}

func FuzzServiceMessage(f *testing.F) {
	f.Add([]byte(`{"conflictingRequest": {"code": 409, "message": "no"}}`))
	f.Add([]byte(`{"error": {"message": "` + strings.Repeat("ö\n ", 400) + `"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, message := serviceMessage(body); len(message) > 700 || strings.ContainsAny(message, "\n\r\t") {
			t.Errorf("%q", message)
		}
	})
}
