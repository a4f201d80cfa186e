package qcow2_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// spying puts a script in qemu-img's place, which runs as that does; check returns what it
// said, and what Check said.
func spying(t *testing.T, script string) (check func(f *os.File) (said string, err error)) {
	t.Helper()
	standIn(t, "qemu-img", "exec >&2\n"+script+"\nexit 9")
	return func(f *os.File) (string, error) {
		_, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{})
		if err == nil {
			t.Fatal("the stand-in did not run")
		}
		return err.Error(), err
	}
}

func status(t *testing.T, f *os.File) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestACopyIsCheckedByAGroupThatNobodyIsInAndThatMayOnlyRead(t *testing.T) {
	f := image(t)
	check := spying(t, `
id -u; id -g; id -G
stat -L -c 'file %u %g %a' /proc/self/fd/3
(: < /proc/self/fd/3) && echo it reads
(: >> /proc/self/fd/3) 2>&- && echo it writes`)
	said, _ := check(f)
	fields := strings.Fields(said[strings.Index(said, "exit status 9:")+len("exit status 9:"):])
	id, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || id < 2000200001 {
		t.Fatalf("it runs as %v (%v)", fields, err)
	}
	want := strings.Repeat(fields[0]+" ", 3) + "file 0 " + fields[0] + " 640 it reads"
	if got := strings.Join(fields, " "); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if said, _ := check(f); strings.Contains(said, fields[0]) {
		t.Error("two checks share an ID")
	}
	if st := status(t, f); st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o600 {
		t.Errorf("the file is left to %d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
	}
}

func TestAnAccessControlListLetsNobodyReadACopyThatIsChecked(t *testing.T) {
	f := image(t)
	list := func() string {
		value := make([]byte, 100)
		n, err := unix.Fgetxattr(int(f.Fd()), "system.posix_acl_access", value)
		if err != nil && !errors.Is(err, unix.ENODATA) {
			t.Fatal(err)
		}
		return string(value[:max(n, 0)])
	}
	if err := unix.Fsetxattr(int(f.Fd()), "system.posix_acl_access", recovertest.AccessList(nobody), 0); err != nil {
		t.Fatal(err)
	}
	before := list()
	inside := spying(t, "ls -l -L /proc/self/fd/3; (: < /proc/self/fd/3) && echo it reads")
	if said, _ := inside(f); strings.Contains(said, "-rw-r-----+") || !strings.Contains(said, "it reads") {
		t.Errorf("during the check: %s", said)
	}
	if list() != before {
		t.Error("afterwards it is another one")
	}
}

func TestWhoTakesQemuImgOverCanCallLittle(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for parent := filepath.Dir(dir); parent != "/tmp" && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := image(t)
	check := spying(t, `
cd '`+dir+`' || echo no directory
(: > made) 2>&- && echo it makes files
mkdir d 2>&- && echo it makes directories
unshare -U true 2>&- && echo it makes namespaces
perl -MSocket -e 'socket(my $s, PF_UNIX, SOCK_STREAM, 0) or exit 1' 2>&- && echo it has sockets
grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\t' ' '`)
	said, _ := check(f)
	for _, bad := range []string{"it makes", "it has", "no directory"} {
		if strings.Contains(said, bad) {
			t.Error(said)
		}
	}
	if !strings.Contains(said, "NoNewPrivs: 1 Seccomp: 2") {
		t.Error(said)
	}
}

func TestACopyThatIsChangedDuringItsCheckIsNoneThatWasProven(t *testing.T) {
	f := image(t)
	changed := filepath.Join(t.TempDir(), "changed")
	real, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatal(err)
	}
	// The stand-in can't write to the file: the test does, when the check has begun.
	run(t, "mkfifo", changed)
	for path := filepath.Dir(changed); path != "/tmp" && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(changed, 0o644); err != nil {
		t.Fatal(err)
	}
	standIn(t, "qemu-img", `read -r line < '`+changed+`'; exec `+real+` "$@"`)
	go func() {
		fifo, err := os.OpenFile(changed, os.O_WRONLY, 0) // waits for the reader
		if err != nil {
			return
		}
		defer fifo.Close()
		_, _ = f.WriteAt([]byte("x"), size(t, f)-1)
		_, _ = fifo.WriteString("done\n")
	}()
	if _, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{}); !errors.Is(err, qcow2.ErrTouched) {
		t.Errorf("error %v", err)
	}
}
