package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/test/lab"
)

const stateDir = "/var/lib/os-rescue"

// rescue rescues what the selectors say, and returns the run's report.
func rescue(t *testing.T, l *lab.Lab, code int, selectors ...string) recover.RunReport {
	t.Helper()
	return report(t, run(t, l, code, rescueArgs(selectors...)...))
}

// rescueArgs are the arguments of a rescue that asks nobody.
func rescueArgs(selectors ...string) []string {
	return append(selectors, "--offline", "--yes", "--output", "json")
}

func report(t *testing.T, r lab.Result) recover.RunReport {
	t.Helper()
	var report recover.RunReport
	decode(t, r.Stdout, &report)
	return report
}

// of returns what a report says of one instance.
func of(t *testing.T, r recover.RunReport, v *victim) recover.InstanceReport {
	t.Helper()
	for _, i := range r.Instances {
		if i.UUID == v.UUID {
			return i
		}
	}
	t.Fatalf("the report has nothing on %s: %+v", v.Name, r)
	return recover.InstanceReport{}
}

// says checks that an error has all the words that an operator needs.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("nothing about %q in: %s", word, text)
		}
	}
}

// at lets os-rescue come to a point of its journal, does something there, and
// lets it go on to its end.
func at(t *testing.T, l *lab.Lab, point string, do func(), args ...string) lab.Result {
	t.Helper()
	return lab.At(t, point, func(env []string) *lab.Process { return l.StartCommand(t, env, args...) }, do)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// records returns a run's journal.
func records(t *testing.T, run string) []journal.Record {
	t.Helper()
	all, err := journal.Read(filepath.Join(stateDir, "runs", run))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// copies returns the last copy that a run made of each of a guest's files, by path.
func copies(t *testing.T, run string, v *victim) map[string]journal.Copy {
	t.Helper()
	histories, err := journal.HistoriesOf(records(t, run))
	if err != nil {
		t.Fatal(err)
	}
	h := histories[v.UUID]
	if h == nil {
		t.Fatalf("run %s did nothing to %s", run, v.Name)
	}
	return h.Copies
}

// count says how often a run came to a point, for one path or for all.
func count(t *testing.T, run, point, path string) int {
	t.Helper()
	n := 0
	for _, r := range records(t, run) {
		if r.Point() == point && (path == "" || r.Path == path) {
			n++
		}
	}
	return n
}

// holdings returns what the keeper has, by `os-rescue status`.
func holdings(t *testing.T, l *lab.Lab) pin.KeeperStatus {
	t.Helper()
	var overview struct {
		Keeper pin.KeeperStatus `json:"keeper"`
	}
	decode(t, run(t, l, 0, "status", "--output", "json").Stdout, &overview)
	return overview.Keeper
}

// listing returns everything under a directory: names, kinds, modes, owners,
// inodes, times, and what files hold. Of what guests write all the time the
// names, owners and inodes only.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		all[path] = fmt.Sprintf("inode %d, mode %o, owner %d:%d", st.Ino, st.Mode, st.Uid, st.Gid)
		if entry.Type().IsRegular() && strings.HasPrefix(path, lab.NovaDir) {
			return nil
		}
		all[path] += fmt.Sprintf(", %d bytes, changed %v", st.Size, st.Ctim)
		if entry.Type().IsRegular() {
			all[path] += ", sha256 " + digest(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// digest returns the SHA-256 of a file.
func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st.Ino
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fill leaves only so many bytes free on the file system of a directory, and
// returns the file that takes the rest.
func fill(t *testing.T, dir string, leave int64) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size int64
	for step := int64(1 << 30); step >= 1<<20; {
		err := error(unix.ENOSPC)
		if free(t, dir)-leave >= step {
			err = unix.Fallocate(int(f.Fd()), 0, size, step)
		}
		switch {
		case err == nil:
			size += step
		case !errors.Is(err, unix.EINTR):
			step /= 2
		}
	}
	return path
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// lookVirsh runs virsh where it may fail, and returns all that it says.
func lookVirsh(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("virsh", append([]string{"--quiet", "--connect", "qemu:///system"}, args...)...).CombinedOutput()
	return string(out), err
}
