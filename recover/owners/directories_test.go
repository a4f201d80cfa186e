package owners

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// tree makes directories in a root of its own, each "PATH UID:GID MODE", and returns a table
// by which all are 100:200 0755.
func tree(t *testing.T, dirs ...string) (*Table, *beneath.Root, string) {
	t.Helper()
	path := t.TempDir()
	for _, d := range dirs {
		var name string
		var uid, gid int
		var mode uint32
		if _, err := fmt.Sscanf(d, "%s %d:%d %o", &name, &uid, &gid, &mode); err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(path, name)
		recovertest.Must(t, os.MkdirAll(at, 0o755))
		recovertest.Must(t, os.Chown(at, uid, gid))
		recovertest.Must(t, unix.Chmod(at, mode))
	}
	settings := recover.DefaultSettings()
	settings.InstancesPath = "/nova/instances"
	rule := recover.OwnerRule{User: "+100", Group: "+200", Mode: 0o755}
	settings.Owners = recover.OwnerTable{InstancesDir: rule, BaseDir: rule, InstanceDir: rule, LocksDir: rule, Base: rule, Disk: rule,
		ConfigDrive: rule, ConsoleLog: rule, DiskInfo: rule}
	root, err := beneath.OpenRoot(path)
	recovertest.Must(t, err)
	t.Cleanup(func() { root.Close() })
	table, err := Resolve(settings, root)
	recovertest.Must(t, err)
	return table, root, path
}

func paths(dirs []recover.Directory) (all []string) {
	for _, d := range dirs {
		all = append(all, d.Path)
	}
	return all
}

func TestDirectoriesThatAreNotAsTheTableSaysAreNamedAndMended(t *testing.T) {
	files := []string{"/nova/instances/u/disk", "/nova/instances/_base/b", "/nova/instances/gone/disk", "/srv/volume", "/nova/instances-2/x"}
	for name, c := range map[string]struct {
		dirs []string
		want []string
	}{
		"all are right": {
			dirs: []string{"nova 0:0 755", "nova/instances 100:200 755", "nova/instances/u 100:200 755", "nova/instances/_base 100:200 755"},
		},
		"root has made them all": {
			dirs: []string{"nova/instances 0:0 755", "nova/instances/u 0:0 755", "nova/instances/_base 0:0 755", "nova/instances/locks 0:0 755"},
			want: []string{"/nova/instances", "/nova/instances/u", "/nova/instances/_base", "/nova/instances/locks"},
		},
		"one is closed to QEMU": {
			dirs: []string{"nova/instances 100:200 755", "nova/instances/u 100:200 700"}, want: []string{"/nova/instances/u"},
		},
		"one is of another group": {
			dirs: []string{"nova/instances 100:200 755", "nova/instances/u 100:0 755"}, want: []string{"/nova/instances/u"},
		},
		"one has more rights":          {dirs: []string{"nova/instances 100:200 2775", "nova/instances/u 100:200 755"}},
		"what is elsewhere is root's":  {dirs: []string{"nova/instances 100:200 755", "srv 0:0 700", "nova/instances-2 0:0 700"}},
		"another instance's is root's": {dirs: []string{"nova/instances 100:200 755", "nova/instances/v 0:0 755"}},
	} {
		t.Run(name, func(t *testing.T) {
			table, root, path := tree(t, c.dirs...)
			covered := table.Covered(files)
			if got := paths(table.Astray(root, covered)); !slices.Equal(got, c.want) {
				t.Errorf("astray: %v, want %v", got, c.want)
			}
			var mended []string
			for _, dir := range covered {
				err := table.Mend(root, dir, func(now recover.Directory, set func() error) error {
					mended = append(mended, now.Path)
					return set()
				})
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
			}
			if !slices.Equal(mended, c.want) {
				t.Errorf("mended: %v, want %v", mended, c.want)
			}
			if left := table.Astray(root, covered); len(left) > 0 {
				t.Errorf("afterwards: %v", left)
			}
			for _, dir := range []string{"srv", "nova/instances-2", "nova/instances/v", "nova"} {
				if st, err := os.Stat(filepath.Join(path, dir)); err == nil && st.Sys().(*syscall.Stat_t).Uid != 0 {
					t.Errorf("%s was changed", dir)
				}
			}
		})
	}
}

func TestADirectoryThatIsMendedKeepsItsSetGroupIDBit(t *testing.T) {
	table, root, path := tree(t, "nova/instances 0:0 2775")
	recovertest.Must(t, table.Mend(root, "/nova/instances", func(_ recover.Directory, set func() error) error { return set() }))
	var st unix.Stat_t
	recovertest.Must(t, unix.Stat(filepath.Join(path, "nova/instances"), &st))
	if st.Uid != 100 || st.Gid != 200 || st.Mode&0o7777 != 0o2755 {
		t.Errorf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
	}
}

// Who can write nova.conf must not get a directory that was not Nova's by naming it there.
func TestADirectoryThatManyShareOrThatOnlyNovasWordNamesKeepsItsOwner(t *testing.T) {
	for name, c := range map[string]struct {
		dir   string
		novas bool // Nova's user alone says that it is the instances directory
		want  error
	}{
		"as /tmp":                         {"0:0 1777", false, ErrNotNovas},
		"sticky":                          {"0:0 1755", false, ErrNotNovas},
		"all can write":                   {"0:0 777", false, ErrNotNovas},
		"root's":                          {"0:0 755", false, nil},
		"root's, by the word of Nova":     {"0:0 755", true, ErrNotNovas},
		"another's, by the word of Nova":  {"77:77 755", true, ErrNotNovas},
		"Nova's own, by the word of Nova": {"100:0 755", true, nil},
		"Nova's, as /tmp, by Nova's word": {"100:0 1777", true, ErrNotNovas},
	} {
		t.Run(name, func(t *testing.T) {
			table, root, path := tree(t, "nova/instances "+c.dir)
			table.settings.InstancesPathIsNovas = c.novas
			astray := table.Astray(root, []string{"/nova/instances"})
			before, err := os.Stat(filepath.Join(path, "nova/instances"))
			recovertest.Must(t, err)
			err = table.Mend(root, "/nova/instances", func(_ recover.Directory, set func() error) error { return set() })
			after, serr := os.Stat(filepath.Join(path, "nova/instances"))
			recovertest.Must(t, serr)
			kept := *before.Sys().(*syscall.Stat_t) == *after.Sys().(*syscall.Stat_t)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || kept != (c.want != nil) || len(astray) > 0 != (c.want == nil) {
				t.Errorf("kept %v, astray %v, error %v", kept, astray, err)
			}
		})
	}
}

// TestNoSymlinkLeadsTheOwnersElsewhere: even root's own may lead to a directory that the table
// says nothing about.
func TestNoSymlinkLeadsTheOwnersElsewhere(t *testing.T) {
	for name, uid := range map[string]int{"root's": 0, "nova's": 100} {
		table, root, path := tree(t, "nova/instances 0:0 755", "etc/secret 0:0 700")
		link := filepath.Join(path, "nova/instances/u")
		recovertest.Must(t, os.Symlink("../../etc/secret", link))
		recovertest.Must(t, os.Lchown(link, uid, uid))
		covered := table.Covered([]string{"/nova/instances/u/disk"})
		if got := paths(table.Astray(root, covered)); !slices.Equal(got, []string{"/nova/instances"}) {
			t.Errorf("%s: %v", name, got)
		}
		err := table.Mend(root, "/nova/instances/u", func(recover.Directory, func() error) error {
			t.Error("it is to be changed")
			return nil
		})
		if !errors.Is(err, beneath.ErrSymlink) {
			t.Errorf("%s: %v", name, err)
		}
		st, err := os.Stat(filepath.Join(path, "etc/secret"))
		recovertest.Must(t, err)
		if st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v", name, st.Mode())
		}
	}
}
