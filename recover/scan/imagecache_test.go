package scan

import (
	"os"
	"os/exec"
	"path/filepath"
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
		"../other/b": "",
		"nbd:x:1":    "",
	} {
		image := filepath.Join(root, "i/u/disk")
		out, err := exec.Command("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", header, image, "1M").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := ""
		if files := cachedBases(t.Context(), l, d, nil); len(files) == 1 {
			got = files[0].Path
		}
		if got != want {
			t.Errorf("%s: %q; want %q", header, got, want)
		}
	}
}
