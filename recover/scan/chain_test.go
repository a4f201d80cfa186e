package scan

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestABackingFileIsComparedAsAFileAndNotAsAText(t *testing.T) {
	const disk, base = "/i/u/disk", "/i/_base/b"
	root := t.TempDir()
	for _, dir := range []string{"i/_base", "i/u", "data/u", "etc"} {
		recovertest.Must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	recovertest.Must(t, os.WriteFile(filepath.Join(root, "etc/shadow"), nil, 0o600))
	recovertest.Must(t, os.WriteFile(filepath.Join(root, "i/_base/whole"), nil, 0o600))
	recovertest.Must(t, os.Link(filepath.Join(root, "i/_base/whole"), filepath.Join(root, "i/_base/link")))
	recovertest.Must(t, os.Symlink("/i", filepath.Join(root, "srv")))
	recovertest.Must(t, os.Symlink("/data/u", filepath.Join(root, "i/moved")))
	recovertest.Must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	in, err := procfs.OpenRoot(root)
	recovertest.Must(t, err)
	defer in.Close()

	file := func(path string) recover.Image {
		return recover.Image{Source: recover.SourceFile, Path: path, Format: "raw"}
	}
	const other, untold = "would read another file", "can't tell which file"
	for name, c := range map[string]struct {
		header string
		format string // in the header
		at     string // the image; disk if empty
		next   recover.Image
		says   string // "" for the same file
	}{
		"a path":                           {header: base, next: file(base)},
		"a path, with its format":          {header: base, format: "raw", next: file(base)},
		"another format":                   {header: base, format: "qcow2", next: file(base), says: "calls its backing file a qcow2 image"},
		"relative":                         {header: "../_base/b", next: file(base)},
		"relative, of a deleted directory": {header: "../_base/b", at: "/i/deleted/disk", next: file(base)},
		"relative, by a colon":             {header: "./a:b", next: file("/i/u/a:b")},
		"relative to a directory elsewhere": {
			header: "../_base/b", at: "/i/moved/disk", next: file(base), says: other,
		},
		"unclean":           {header: "/i/./u/..//_base/b", next: file(base)},
		"through a link":    {header: "/srv/_base/b", next: file(base)},
		"through a loop":    {header: "/loop/b", next: file(base), says: untold},
		"a hard link":       {header: "/i/_base/link", next: file("/i/_base/whole")},
		"with its protocol": {header: "file:" + base, next: file(base)},
		"with its protocol, relative": {
			header: "file:b", next: file(base), says: untold,
		},
		"JSON, nested": {header: `json:{"driver":"raw","file":{"driver":"file","filename":"/i/_base/b"}}`, next: file(base)},
		"JSON, dotted": {header: `json:{"driver":"raw","file.driver":"file","file.filename":"/srv/_base/b"}`, next: file(base)},
		"JSON, a file": {header: `json:{"driver":"file","filename":"/i/_base/b"}`, format: "raw", next: file(base)},
		"JSON, no driver": {
			header: `json:{"file":{"filename":"file:/i/_base/b"}}`, next: file(base),
		},
		"JSON, another file": {
			header: `json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}`, next: file(base), says: other,
		},
		"JSON, another format": {
			header: `json:{"driver":"qcow2","file":{"driver":"file","filename":"/i/_base/b"}}`, next: file(base), says: "qcow2",
		},
		"JSON, a part of the file": {
			header: `json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"/i/_base/b"}}`, next: file(base), says: untold,
		},
		"JSON, both ways": {
			header: `json:{"file":{"driver":"file","filename":"/i/_base/b"},"file.filename":"/etc/shadow"}`, next: file(base), says: untold,
		},
		"JSON, a name of QEMU's": {header: `json:{"driver":"raw","file":"node0"}`, next: file(base), says: untold},
		"JSON, relative":         {header: `json:{"driver":"file","filename":"b"}`, next: file(base), says: untold},
		"JSON, cut":              {header: `json:{"driver":"raw"`, next: file(base), says: untold},
		"JSON in JSON":           {header: `json:{"filename":"json:{}"}`, next: file(base), says: untold},
		"JSON, empty":            {header: `json:{}`, next: file(base), says: untold},
		"another file":           {header: "/etc/shadow", next: file(base), says: other},
		"another file, relative": {header: "../../etc/shadow", next: file(base), says: other},
		"no file":                {header: "nbd:localhost:10809", next: file(base), says: "would read no file"},
		"nothing":                {header: "", next: file(base), says: other},
		"one too many":           {header: base, next: recover.Image{Source: recover.SourceNone}, says: other},
		"none":                   {header: "", next: recover.Image{Source: recover.SourceNone}},
		"a volume":               {header: "rbd:pool/b", next: recover.Image{Source: recover.SourceNetwork}},
		"a volume, in JSON":      {header: `json:{"driver":"rbd"}`, next: recover.Image{Source: recover.SourceNetwork}},
		"a file for a volume":    {header: "/etc/shadow", next: recover.Image{Source: recover.SourceNetwork}, says: "a file of this host"},
		"a device":               {header: "host_device:/dev/vg/b", next: recover.Image{Source: recover.SourceBlock, Path: "/dev/vg/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			at := disk
			if c.at != "" {
				at = c.at
			}
			d := recover.Domain{Disks: []recover.Disk{{ChainKnown: true, Chain: []recover.Image{file(at)}}}}
			if c.next.Source != recover.SourceNone {
				d.Disks[0].Chain = append(d.Disks[0].Chain, c.next)
			}
			err := CheckHeader(d, at, qcow2.Header{BackingFile: c.header, BackingFormat: c.format}, in)
			if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, recover.ErrRefused) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v; want %q", err, c.says)
			}
		})
	}
}

// A guest writes any name.
func FuzzBackingName(f *testing.F) {
	for _, name := range []string{"", "/b", "../b", "file:/b", "nbd:x", `json:{"driver":"raw","file.filename":"/b"}`,
		`json:{"file":{"file":{"file":{}}}}`} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := readBackingName(name)
		if err != nil && (!errors.Is(err, errNotTold) || got.path != "" && strings.HasPrefix(name, "json:{}")) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
