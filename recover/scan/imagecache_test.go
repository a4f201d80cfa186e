package scan

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestTheBaseOfADomainThatIsOffIsFoundHoweverItsHeaderNamesIt(t *testing.T) {
	const instances = "/i"
	root := t.TempDir()
	recovertest.Must(t, os.MkdirAll(filepath.Join(root, "i/_base"), 0o755))
	recovertest.Must(t, os.MkdirAll(filepath.Join(root, "i/u"), 0o755))
	recovertest.Must(t, os.MkdirAll(filepath.Join(root, "i/elsewhere/b"), 0o755)) // anything: it is not opened
	recovertest.Must(t, os.Symlink("/i", filepath.Join(root, "srv")))
	in, err := procfs.OpenRoot(root)
	recovertest.Must(t, err)
	defer in.Close()
	l := &look{root: in, settings: recover.Settings{InstancesPath: instances}}
	d := recover.Domain{UUID: recovertest.UUID(1), Disks: []recover.Disk{{
		Target: "vda",
		Chain:  []recover.Image{{Source: recover.SourceFile, Path: "/i/u/disk", Format: "qcow2"}},
	}}}
	for header, want := range map[string]string{
		"/i/_base/b":      "/i/_base/b",
		"../_base/b":      "/i/_base/b",
		"/srv/_base/b":    "/i/_base/b",
		"file:/i/_base/b": "/i/_base/b",
		`json:{"driver":"raw","file":{"driver":"file","filename":"/i/_base/b"}}`: "/i/_base/b",
		"../other/b":     "/i/u/../other/b", // it is not there
		"/i/elsewhere/b": "",
		"nbd:x:1":        "",
		"file:b":         "it can't be told",
	} {
		image := filepath.Join(root, "i/u/disk")
		out, err := exec.Command("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", header, image, "1M").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := ""
		files, doubts := cachedBases(t.Context(), l, d, nil)
		if len(files) == 1 {
			got = files[0].Path
		}
		if len(doubts) > 0 {
			got += doubts[0]
		}
		if got != want && (len(doubts) == 0 || !strings.HasPrefix(got, want)) {
			t.Errorf("%s: %q; want %q", header, got, want)
		}
	}
}

// A snapshot's overlay is on top: what is below it in the instance's own directory is needed
// too, and what that needs; a name anywhere else is not followed.
func TestTheLayersOfADomainThatIsOffAreFoundBelowASnapshot(t *testing.T) {
	root, uuid := t.TempDir(), recovertest.UUID(1)
	dir := filepath.Join(root, "i", uuid)
	recovertest.Must(t, os.MkdirAll(filepath.Join(root, "i/_base"), 0o755))
	recovertest.Must(t, os.MkdirAll(dir, 0o755))
	in, err := procfs.OpenRoot(root)
	recovertest.Must(t, err)
	defer in.Close()
	l := &look{root: in, settings: recover.Settings{InstancesPath: "/i"}}
	create := func(name, format, backing string) {
		out, err := exec.Command("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", backing, filepath.Join(dir, name), "1M").
			CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	own := "/i/" + uuid + "/"
	create("disk", "raw", "/i/_base/b")
	create("disk.loop", "qcow2", own+"disk.loop")
	d := recover.Domain{UUID: uuid, Disks: []recover.Disk{{
		Target: "vda",
		Chain:  []recover.Image{{Source: recover.SourceFile, Path: own + "disk.snap", Format: "qcow2"}},
	}}}
	for name, c := range map[string]struct {
		format, backing string
		want            []string
	}{
		"one layer above the base":   {"qcow2", own + "disk", []string{"/i/_base/b", own + "disk"}},
		"a layer that is called raw": {"raw", own + "disk", []string{own + "disk"}},
		"a layer that is gone":       {"qcow2", own + "disk.gone", []string{own + "disk.gone"}},
		"another instance's, gone":   {"qcow2", "/i/other/disk", []string{"/i/other/disk"}},
		"a layer of itself":          {"qcow2", own + "disk.loop", []string{own + "disk.loop"}},
	} {
		t.Run(name, func(t *testing.T) {
			create("disk.snap", c.format, c.backing)
			var got []string
			files, _ := cachedBases(t.Context(), l, d, nil)
			for _, f := range files {
				got = append(got, f.Path)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q; want %q", got, c.want)
			}
		})
	}
}
