package beneath

import (
	"errors"
	"os"
	"testing"
)

func TestNamesAreThoseOfTheRootTheyAreLookedUpIn(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d etc 0 755")
	passwd := "root:x:0:0::/:/bin/sh\n" +
		"nova:x:42436:42436::/:/bin/sh\n" +
		"libvirt-qemu:x:1:2\n" +
		"123:x:9:9:::\n"
	must(t, os.WriteFile(path+"/etc/passwd", []byte(passwd), 0o644))
	must(t, os.WriteFile(path+"/etc/group", []byte("nova:x:42437:\nkvm:x:78:nova,x\n"), 0o644))
	o, err := root.Owner("nova", "kvm", 0o644)
	must(t, err)
	if (o != Owner{UID: 42436, GID: 78, Mode: 0o644}) {
		t.Errorf("nova:kvm is %v", o)
	}
	for name, want := range map[string]uint32{"123": 9, "+123": 123, "124": 124, "libvirt-qemu": 1} {
		if id, err := root.LookupUser(name); err != nil || id != want {
			t.Errorf("user %q is %d, %v; want %d", name, id, err, want)
		}
	}
	for _, name := range []string{"nobody", "+nova", "+", "", "-1", "4294967295", "+4294967295", "nova:x"} {
		var unknown *UnknownNameError
		if _, err := root.LookupUser(name); !errors.As(err, &unknown) || !errors.Is(err, ErrUnknownName) || unknown.Kind != "user" {
			t.Errorf("user %q: %v, want an UnknownNameError", name, err)
		}
	}
	if u, g := root.UserName(42436), root.GroupName(78); u != "nova" || g != "kvm" {
		t.Errorf("42436:78 are called %q, %q", u, g)
	}
	if u, g := root.UserName(3), root.GroupName(42436); u != "" || g != "" {
		t.Errorf("numbers that nobody has are called %q, %q", u, g)
	}
	must(t, os.WriteFile(path+"/etc/passwd", []byte("nova:x:7:7:::\n"), 0o644))
	if id, err := root.LookupUser("nova"); err != nil || id != 7 {
		t.Errorf("after a reinstall nova is %d, %v; want 7", id, err)
	}
}

func TestNamesOfTheOwnRootComeFromNSS(t *testing.T) {
	for _, path := range []string{"/", "/proc/self/root"} {
		root, err := OpenRoot(path)
		must(t, err)
		defer root.Close()
		if own, err := root.isOwn("passwd"); err != nil || !own {
			t.Errorf("%s: own %v, %v", path, own, err)
		}
		if o, err := root.Owner("root", "root", 0); err != nil || (o != Owner{}) {
			t.Errorf("%s: root:root is %v, %v", path, o, err)
		}
		if u, g := root.UserName(0), root.GroupName(0); u != "root" || g != "root" || root.UserName(4294967) != "" {
			t.Errorf("%s: 0:0 are called %q, %q", path, u, g)
		}
		if _, err := root.Owner("no-such-user", "no-such-group", 0); !errors.Is(err, ErrUnknownName) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAForeignPasswdFileIsNeverReadThroughASymlink(t *testing.T) {
	root, path := testRoot(t)
	build(t, path, "d etc 0 755", "l etc/passwd 0 /etc/group")
	if _, err := root.LookupUser("root"); !errors.Is(err, ErrSymlink) {
		t.Errorf("got %v", err)
	}
	if _, err := root.LookupGroup("root"); err == nil || errors.Is(err, ErrUnknownName) {
		t.Errorf("a missing file is no proof that there is no such group: %v", err)
	}
}

func FuzzFindID(f *testing.F) {
	f.Add([]byte("root:x:0:0::/:/bin/sh\nnova:x:42436:42436::/:/bin/sh\n"), "nova")
	f.Add([]byte("+::::::\n#nova:x:1:1\nnova:x:-1:0\nnova:x:4294967295:0\n"), "nova")
	f.Add([]byte("kvm:x:107:a,b\r\n\n:x:0:0\n"), "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		id, found := findID(data, name)
		if !found {
			if id != 0 {
				t.Errorf("an ID of %d with nothing found", id)
			}
			return
		}
		if name == "" || id == 1<<32-1 {
			t.Errorf("%q is %d", name, id)
		}
		if again, ok := findID(append(append([]byte{}, data...), '\n'), name); !ok || again != id {
			t.Errorf("one more newline turns %d into %d, %v", id, again, ok)
		}
	})
}
