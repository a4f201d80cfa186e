package recover

import (
	"errors"
	"testing"
)

func TestAMappingIsAPathAndADescriptor(t *testing.T) {
	for text, want := range map[string]Mapping{
		"/i/u/disk=10:13":    {"/i/u/disk", 10, 13},
		"/i/u/disk=old=1:0":  {"/i/u/disk=old", 1, 0},
		"i/u/disk=10:13":     {},
		"/i/u/disk":          {},
		"/i/u/disk=10":       {},
		"/i/u/disk=10:":      {},
		"/i/u/disk=0:13":     {},
		"/i/u/disk=10:-1":    {},
		"/i/u/disk=10:13:14": {},
		"":                   {},
	} {
		got, err := ParseMapping(text)
		if got != want || (err == nil) != (want.Path != "") || err != nil && !errors.Is(err, ErrUsage) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}
