package scan

import (
	"path/filepath"
	"strings"
	"testing"
)

// Nova's user can write it.
func FuzzDiskInfo(f *testing.F) {
	const dir = "/var/lib/nova/instances/u"
	for _, text := range []string{`{"` + dir + `/disk": "qcow2"}`, `{"` + dir + `/../v/disk": "raw", "disk": "raw", "": ""}`,
		`{}`, `null`, `[]`, `{"a": 1}`,
		`{"` + dir + `/": "raw", "` + dir + `": "raw", "` + dir + `//disk": "\u0000"}`, "{\"" + dir + "/\xff\": \"raw\"}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		formats, err := parseDiskInfo(data, dir)
		if err != nil && formats != nil {
			t.Fatalf("%v with %v", formats, err)
		}
		for name := range formats {
			if name == "" || strings.Contains(name, "/") || filepath.Dir(filepath.Join(dir, name)) != dir && name != filepath.Base(dir) {
				t.Fatalf("%q is in %s", name, dir)
			}
		}
		text, err := DiskInfoContent(formats)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseDiskInfo([]byte(text), dir); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	})
}
