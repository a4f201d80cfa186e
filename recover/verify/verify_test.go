package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

const base = "_base/shared"

// backup makes a backup of two instances that share a base: the first one's disk is a qcow2,
// the second one's is raw.
func backup(t *testing.T) (dir string, m manifest.Manifest) {
	t.Helper()
	dir = t.TempDir()
	one, two := recovertest.UUID(1), recovertest.UUID(2)
	for _, d := range []string{one, two, "_base"} {
		recovertest.Must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	write(t, dir, base, recovertest.Payload(1, 3<<20+100))
	write(t, dir, two+"/disk", recovertest.Payload(2, 1<<20))
	write(t, dir, one+"/domain.xml", []byte("<domain/>"))
	write(t, dir, two+"/domain.xml", []byte("<domain/>"))
	create(t, filepath.Join(dir, one, "disk"))
	m = manifest.Manifest{Version: manifest.Version, Host: "node", Instances: []manifest.Instance{
		{UUID: one, Domain: "instance-1", Definition: one + "/domain.xml", Files: []manifest.File{
			entry(t, dir, one+"/disk", "qcow2"), entry(t, dir, base, "raw")}},
		{UUID: two, Domain: "instance-2", Definition: two + "/domain.xml", Files: []manifest.File{
			entry(t, dir, two+"/disk", "raw"), entry(t, dir, base, "raw")}},
	}}
	writeManifest(t, dir, m)
	return dir, m
}

// create makes a qcow2 image with qemu-img, with these arguments besides.
func create(t *testing.T, path string, args ...string) {
	t.Helper()
	args = append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path, "1M")
	// For an encrypted image it measures the speed of the CPU, and fails if the kernel has not accounted
	// any CPU time to it yet.
	recovertest.Must(t, patience.Retry(func() error {
		out, err := exec.Command("qemu-img", args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("qemu-img: %w: %s", err, out)
		}
		return err
	}))
	recovertest.Must(t, os.Chmod(path, 0o600))
}

// entry is the manifest's entry of a copy, as it is now.
func entry(t *testing.T, dir, stored, format string) manifest.File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, stored))
	recovertest.Must(t, err)
	sum := sha256.Sum256(data)
	return manifest.File{Path: "/i/" + stored, Stored: stored, Format: format, Role: recover.RoleDisk, Size: int64(len(data)),
		SHA256: hex.EncodeToString(sum[:])}
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	recovertest.Must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
}

func writeManifest(t *testing.T, dir string, m manifest.Manifest) {
	t.Helper()
	data, err := json.Marshal(m)
	recovertest.Must(t, err)
	write(t, dir, manifest.FileName, data)
}

// reads counts how often each file is read.
type reads struct {
	recover.NoProgress
	of  map[string]int
	see func(path string)
}

func (r *reads) File(_ recover.Subject, path, _ string, _ int64) recover.FileProgress {
	r.of[path]++
	if r.see != nil {
		r.see(path)
	}
	return recover.NoProgress{}.File(recover.Subject{}, "", "", 0)
}

func state(t *testing.T, r Report, uuid, stored string) File {
	t.Helper()
	for _, i := range r.Instances {
		for _, f := range i.Files {
			if i.UUID == uuid && f.Stored == stored {
				return f
			}
		}
	}
	t.Fatalf("%s of %s is not in the report", stored, uuid)
	return File{}
}

func TestAWholeBackupIsReadOnceAndFoundWhole(t *testing.T) {
	dir, m := backup(t)
	write(t, dir, "notes.txt", []byte("by hand"))
	one, two := m.Instances[0].UUID, m.Instances[1].UUID
	create(t, filepath.Join(dir, two, "disk.eph0"), "--object", "secret,id=s,data=x",
		"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10")
	m.Instances[1].Files = append(m.Instances[1].Files, entry(t, dir, two+"/disk.eph0", "qcow2"))
	writeManifest(t, dir, m)
	show := &reads{of: map[string]int{}}
	r, err := Backup(t.Context(), dir, Options{Progress: show})
	recovertest.Must(t, err)
	if !r.OK || r.Interrupted || len(r.Instances) != 2 || !slices.Equal(r.Unnamed, []string{"notes.txt"}) {
		t.Errorf("%+v", r)
	}
	if show.of[base] != 1 {
		t.Errorf("the shared base was read %d times", show.of[base])
	}
	if f := state(t, r, one, one+"/disk"); !f.Checked || f.SHA256 != m.Instances[0].Files[0].SHA256 {
		t.Errorf("the qcow2: %+v", f)
	}
	if f := state(t, r, two, two+"/disk.eph0"); f.Checked || !strings.Contains(f.Unchecked, "encrypted") || f.State != StateOK {
		t.Errorf("the encrypted one: %+v", f)
	}
	var st unix.Stat_t
	recovertest.Must(t, unix.Stat(filepath.Join(dir, one, "disk"), &st))
	if st.Uid != 0 || st.Mode&0o777 != 0o600 {
		t.Errorf("the check left the copy to %d, mode %o", st.Uid, st.Mode)
	}
}

func TestWhatIsWrongWithABackupIsFound(t *testing.T) {
	one, two := recovertest.UUID(1), recovertest.UUID(2)
	flip := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			data, err := os.ReadFile(filepath.Join(dir, name))
			recovertest.Must(t, err)
			data[len(data)-1] ^= 1
			write(t, dir, name, data)
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, string)
		stored string
		state  State
		says   string
		whole  []string // the instances that are whole all the same
	}{
		"a bit of one disk": {flip(two + "/disk"), two + "/disk", StateDiffers, "SHA-256", []string{one}},
		"a bit of the base": {flip(base), base, StateDiffers, "SHA-256", nil},
		"a disk that was cut": {func(t *testing.T, dir string) {
			recovertest.Must(t, os.Truncate(filepath.Join(dir, two, "disk"), 4096))
		}, two + "/disk", StateDiffers, "4096 bytes", []string{one}},
		"a disk that is gone": {func(t *testing.T, dir string) {
			recovertest.Must(t, os.Remove(filepath.Join(dir, two, "disk")))
		}, two + "/disk", StateMissing, "not there", []string{one}},
		"a directory that is gone": {func(t *testing.T, dir string) {
			recovertest.Must(t, os.RemoveAll(filepath.Join(dir, two)))
		}, two + "/disk", StateMissing, "not there", []string{one}},
		"a definition that is gone": {func(t *testing.T, dir string) {
			recovertest.Must(t, os.Remove(filepath.Join(dir, two, "domain.xml")))
		}, two + "/domain.xml", StateMissing, "not there", []string{one}},
		"a FIFO": {func(t *testing.T, dir string) {
			recovertest.Must(t, os.Remove(filepath.Join(dir, two, "disk")))
			recovertest.Must(t, unix.Mkfifo(filepath.Join(dir, two, "disk"), 0o600))
		}, two + "/disk", StateUnreadable, "regular", []string{one}},
		"a symlink": {func(t *testing.T, dir string) {
			recovertest.Must(t, os.Remove(filepath.Join(dir, two, "disk")))
			recovertest.Must(t, os.Symlink("/etc/passwd", filepath.Join(dir, two, "disk")))
		}, two + "/disk", StateUnreadable, "symlink", []string{one}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := backup(t)
			c.change(t, dir)
			r, err := Backup(t.Context(), dir, Options{Progress: recover.NoProgress{}})
			recovertest.Must(t, err)
			if r.OK {
				t.Error("it is called whole")
			}
			if f := state(t, r, two, c.stored); f.State != c.state || !strings.Contains(f.Reason, c.says) {
				t.Errorf("%+v", f)
			}
			for _, i := range r.Instances {
				if i.OK != slices.Contains(c.whole, i.UUID) {
					t.Errorf("%s: whole is %t", i.UUID, i.OK)
				}
			}
		})
	}
}

func TestAnImageThatWasBackedUpDamagedIsSaidToBe(t *testing.T) {
	dir, m := backup(t)
	path := filepath.Join(dir, m.Instances[0].Files[0].Stored)
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	table := int(data[48])<<56 | int(data[49])<<48 | int(data[50])<<40 | int(data[51])<<32 |
		int(data[52])<<24 | int(data[53])<<16 | int(data[54])<<8 | int(data[55])
	copy(data[table:], make([]byte, 8)) // its refcount table, whose place the header has at 48
	recovertest.Must(t, os.WriteFile(path, data, 0o600))
	sum := sha256.Sum256(data)
	m.Instances[0].Files[0].SHA256 = hex.EncodeToString(sum[:])
	writeManifest(t, dir, m)
	r, err := Backup(t.Context(), dir, Options{Progress: recover.NoProgress{}})
	recovertest.Must(t, err)
	if f := r.Instances[0].Files[0]; f.State != StateCorrupt || r.OK || !r.Instances[1].OK {
		t.Errorf("%+v", f)
	}
}

func TestABackupThatWasInterruptedIsNoneOfItsInstance(t *testing.T) {
	dir, _ := backup(t)
	write(t, dir, recovertest.UUID(3)+"/disk", []byte("half"))
	for n := range mostUnnamed + 7 {
		write(t, dir, "more/"+recovertest.UUID(n), nil)
	}
	r, err := Backup(t.Context(), dir, Options{Progress: recover.NoProgress{}})
	recovertest.Must(t, err)
	if r.OK || !slices.Equal(r.Incomplete, []string{recovertest.UUID(3)}) || !r.Instances[0].OK {
		t.Errorf("%+v", r)
	}
	if len(r.Unnamed) != mostUnnamed || r.More != 8 {
		t.Errorf("%d unnamed files and %d more", len(r.Unnamed), r.More)
	}
}

func TestAnInterruptedVerificationCallsNothingGoodThatItHasNotRead(t *testing.T) {
	dir, m := backup(t)
	ctx, cancel := context.WithCancel(t.Context())
	show := &reads{of: map[string]int{}, see: func(path string) {
		if path == base {
			cancel()
		}
	}}
	r, err := Backup(ctx, dir, Options{Progress: show})
	recovertest.Must(t, err)
	if !r.Interrupted || r.OK {
		t.Errorf("%+v", r)
	}
	one := m.Instances[0].UUID
	if a, b := state(t, r, one, one+"/disk"), state(t, r, one, base); a.State != StateOK || b.State != StateNotRead ||
		strings.Contains(b.Reason, "canceled") {
		t.Errorf("%+v, %+v", a, b)
	}
}

func TestADirectoryWithoutABackupIsBadUsage(t *testing.T) {
	if _, err := Backup(t.Context(), t.TempDir(), Options{Progress: recover.NoProgress{}}); !errors.Is(err, recover.ErrUsage) ||
		!errors.Is(err, manifest.ErrNoBackup) {
		t.Errorf("%v", err)
	}
}
