package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
)

func TestVersionSaysWhatTheToolchainStamped(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
	}}
	want := build{Version: "v1.2.3", Commit: "abc, changed", Go: "go1.26.0", Libvirt: "11.10.2"}
	if diff := cmp.Diff(want, describe(info, 11010002)); diff != "" {
		t.Error(diff)
	}
	if got := describe(nil, 0); got.Version != "unknown" || got.Commit != "unknown" {
		t.Errorf("%+v", got)
	}
	var shown build
	o := do(t, &fake{}, call{args: "version --output json"})
	if err := json.Unmarshal([]byte(o.out), &shown); err != nil || shown.Go == "" || shown.Libvirt == "" {
		t.Errorf("%q: %v", o.out, err)
	}
}

func TestEveryCommandHasAManualPageAndALongHelpWithAnExample(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man8")
	if o := do(t, &fake{}, call{args: "man " + dir}); o.code != exitOK {
		t.Fatal(o.err)
	}
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "completion" || c.Name() == "help" {
			return
		}
		page := filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".8")
		if _, err := os.Stat(page); err != nil {
			t.Error(err)
		}
		if c.Long == "" || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no long help, or no example of it", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot(&app{}))
}

func TestTheHelpNamesTheConfigurationThatIsRead(t *testing.T) {
	o := do(t, &fake{}, call{args: "--help"})
	if !strings.Contains(o.out, "Configuration: "+config.DefaultFile+",") || !strings.Contains(o.out, "("+config.EnvPrefix+"LOG_LEVEL ") {
		t.Error(o.out)
	}
}
