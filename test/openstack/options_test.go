package openstack

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestWhatABedIsLikeLastsUntilItIsPurged(t *testing.T) {
	dir := t.TempDir()
	given := Options{Dir: dir, FakeComputes: 2, NovaConf: "[DEFAULT]\nhost = compute-9\ninstances_path = /srv/instances\n"}
	if err := Open(given).lasting.write(dir); err != nil {
		t.Fatal(err)
	}
	b := Open(Options{Dir: dir})
	if !slices.Contains(b.Services(), "nova-compute-fake-2") {
		t.Errorf("its services are %v", b.Services())
	}
	if b.Host() != "compute-9" || b.InstancesPath() != "/srv/instances" {
		t.Errorf("its host is %s, and its instances are in %s", b.Host(), b.InstancesPath())
	}
	files, err := configFiles(b)
	if err != nil || !strings.HasSuffix(string(files["nova.conf"]), "\n"+given.NovaConf) {
		t.Errorf("its nova.conf does not end with what was given: %v\n%s", err, files["nova.conf"])
	}
	if b := Open(Options{Dir: dir, FakeComputes: 1}); b.lasting.FakeComputes != 2 {
		t.Errorf("%d of its 2 fake computes are left", b.lasting.FakeComputes)
	}
	if err := os.WriteFile(lastingFile(dir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Up(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "options") {
		t.Errorf("of options that can't be read it says %v", err)
	}
}

func TestABedHasNovasDefaultsUnlessOthersAreGiven(t *testing.T) {
	b := Open(Options{Dir: t.TempDir(), NovaConf: "[libvirt]\nhost = not-this\n"})
	if b.Host() != hostName || b.InstancesPath() != "/var/lib/nova/instances" {
		t.Errorf("its host is %s, and its instances are in %s", b.Host(), b.InstancesPath())
	}
}

func TestTheLastSettingOfTheDefaultSectionHolds(t *testing.T) {
	const text = "host = none\n[DEFAULT]\nhost = first\n# host = comment\n[api]\nhost = other\n[DEFAULT]\nhost=second \n host = continued\n"
	for option, want := range map[string]string{"host": "second", "port": ""} {
		if got := defaultSetting(text, option); got != want {
			t.Errorf("%s is %q, want %q", option, got, want)
		}
	}
}

func FuzzDefaultSetting(f *testing.F) {
	f.Add("[DEFAULT]\nhost = compute\n[api]\nhost = b\n", "host")
	f.Add("[[\n=\n", "")
	f.Fuzz(func(t *testing.T, text, option string) {
		if got := defaultSetting(text, option); got != "" && !strings.Contains(text, got) {
			t.Errorf("%q of %q", got, text)
		}
	})
}

func TestNovasServicesStopForAnotherNovaConfOnly(t *testing.T) {
	b := Open(Options{Dir: t.TempDir()})
	for _, dir := range []string{"etc", "run"} {
		if err := makeDir(b.dir+"/"+dir, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(b.NovaConf(), []byte("[DEFAULT]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := leader(t, "wait")
	s := b.service(NovaConductor)
	if err := writePID(s.pidFile(), p); err != nil {
		t.Fatal(err)
	}
	if err := stopForNew(b, []byte("[DEFAULT]\n")); err != nil || !p.alive() {
		t.Errorf("with the same nova.conf: %v, alive %v", err, p.alive())
	}
	if err := stopForNew(b, []byte("[DEFAULT]\nhost = x\n")); err != nil || p.alive() {
		t.Errorf("with another nova.conf: %v, alive %v", err, p.alive())
	}
	if _, err := os.Stat(s.pidFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its pid file: %v", err)
	}
}
