package recover_test

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestTwoInodesAreOneFileOnlyIfNothingTellsThemApart(t *testing.T) {
	const old = "" // of a release that knew no births, or on a file system that has none
	at := func(device, inode uint64, birth string) recover.Inode {
		return recover.Inode{Device: device, Inode: inode, Birth: birth}
	}
	for name, c := range map[string]struct {
		a, b       recover.Inode
		held, ever bool // they are one, while a descriptor holds it and at any time
	}{
		"the same":                            {at(1, 2, "b5"), at(1, 2, "b5"), true, true},
		"born a nanosecond later":             {at(1, 2, "b5"), at(1, 2, "b6"), false, false},
		"born at the same time, another one":  {at(1, 2, "b5"), at(1, 3, "b5"), false, false},
		"on another device":                   {at(1, 2, "b5"), at(2, 2, "b5"), false, false},
		"of the same generation":              {at(1, 2, "g0f"), at(1, 2, "g0f"), true, true},
		"of the next generation":              {at(1, 2, "g0f"), at(1, 2, "g10"), false, false},
		"a record without births":             {at(1, 2, "b5"), at(1, 2, old), true, false},
		"a record without births of another":  {at(1, 2, "b5"), at(1, 3, old), false, false},
		"neither has a birth":                 {at(1, 2, old), at(1, 2, old), true, false},
		"neither has a birth, another device": {at(1, 2, old), at(2, 2, old), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, pair := range [][2]recover.Inode{{c.a, c.b}, {c.b, c.a}} {
				if pair[0].Is(pair[1], true) != c.held || pair[0].Is(pair[1], false) != c.ever {
					t.Errorf("%v and %v are one: %v while held, %v ever", pair[0], pair[1], pair[0].Is(pair[1], true), pair[0].Is(pair[1], false))
				}
			}
			for _, i := range []recover.Inode{c.a, c.b} {
				if got, ok := recover.ParseKey(i.Key()); !ok || got != i {
					t.Errorf("the key %q is read as %v, %v", i.Key(), got, ok)
				}
			}
		})
	}
	if key := (recover.Inode{}).Key(); key != "" {
		t.Errorf("no inode has the key %q", key)
	}
}

func TestABootThatNumbersDevicesAnewChangesNoFile(t *testing.T) {
	before, after := recover.Inode{Device: 1, Inode: 2, Birth: "b5"}, recover.Inode{Device: 9, Inode: 2, Birth: "b5"}
	if !before.IsNumbered(after, false) || before.IsNumbered(recover.Inode{Device: 9, Inode: 2, Birth: "b6"}, true) {
		t.Error("the birth does not decide")
	}
	if before.Unborn().IsNumbered(after, false) {
		t.Error("a number alone was believed")
	}
}

func TestADiskIsWrittenWhileItsQEMUHasItOpenSo(t *testing.T) {
	disk := recover.Inode{Device: 1, Inode: 2, Birth: "b5"}
	file := func(pid int, writable bool) recover.File {
		return recover.File{Device: 1, Inode: 2, Birth: "b5", Holders: []recover.Holder{{PID: pid, Writable: writable}}}
	}
	for name, c := range map[string]struct {
		i    recover.Instance
		want bool
	}{
		"a disk":               {recover.Instance{PID: 7, Files: []recover.File{file(7, true)}}, true},
		"a file without name":  {recover.Instance{PID: 7, Nameless: []recover.File{file(7, true)}}, true},
		"a backing file":       {recover.Instance{PID: 7, Files: []recover.File{file(7, false)}}, false},
		"a pin":                {recover.Instance{PID: 7, Files: []recover.File{file(8, false)}}, false},
		"a domain that is off": {recover.Instance{Files: []recover.File{file(0, true)}}, false},
	} {
		if got := c.i.Writes(disk); got != c.want {
			t.Errorf("%s is written: %v", name, got)
		}
	}
}
