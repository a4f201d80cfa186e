package hostroot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// scene is an instances directory, and processes that see it or another one in its place.
type scene struct {
	t    *testing.T
	proc string // shows the scene's processes alone
	path string // the instances directory
	o    Options
	uid  uint32 // of the processes that are started
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, proc: t.TempDir(), path: filepath.Join(t.TempDir(), "instances")}
	recovertest.Must(t, os.MkdirAll(s.path, 0o755))
	recovertest.Must(t, os.Symlink("/proc/sys", filepath.Join(s.proc, "sys")))
	s.o = Options{InstancesPath: s.path, RunDir: t.TempDir(), Proc: s.proc}
	return s
}

// start starts a process of that name. Its mount namespace is this one's if mounted is
// empty, a copy of it with "same", and one with another directory at the instances path
// otherwise, in which there is a file of that name.
func (s *scene) start(command, mounted string, args ...string) *exec.Cmd {
	s.t.Helper()
	program := filepath.Join(s.t.TempDir(), command)
	recovertest.Must(s.t, os.WriteFile(program, []byte("#!/bin/sh\necho up; read x\n"), 0o755))
	line := append([]string{program}, args...)
	switch mounted {
	case "":
	case "same":
		line = append([]string{"unshare", "--mount", "--propagation", "private"}, line...)
	default:
		other := s.t.TempDir()
		recovertest.Must(s.t, os.WriteFile(filepath.Join(other, mounted), nil, 0o644))
		script := `mount --bind "$0" "$1" && shift && exec "$@"`
		line = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, other, s.path}, line...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	in, err := cmd.StdinPipe()
	recovertest.Must(s.t, err)
	out, err := cmd.StdoutPipe()
	recovertest.Must(s.t, err)
	cmd.Stderr = os.Stderr
	if s.uid != 0 {
		recovertest.Must(s.t, os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: s.uid}}
		if mounted != "" {
			cmd.Args = append([]string{"unshare", "--map-root-user"}, cmd.Args[1:]...)
		}
	}
	recovertest.Must(s.t, cmd.Start())
	s.t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	_, err = out.Read(make([]byte, 1))
	recovertest.Must(s.t, err)
	pid := fmt.Sprint(cmd.Process.Pid)
	recovertest.Must(s.t, os.Symlink("/proc/"+pid, filepath.Join(s.proc, pid)))
	return cmd
}

func (s *scene) end(cmd *exec.Cmd) {
	recovertest.Must(s.t, cmd.Process.Kill())
	_ = cmd.Wait()
	recovertest.Must(s.t, os.Remove(filepath.Join(s.proc, fmt.Sprint(cmd.Process.Pid))))
}

func (s *scene) find() *Root {
	s.t.Helper()
	r, err := Find(s.t.Context(), s.o)
	recovertest.Must(s.t, err)
	s.t.Cleanup(r.Close)
	return r
}

// shows checks which directory the root has at the instances path, by the file in it; empty
// for this process's own.
func (s *scene) shows(r *Root, file string) {
	s.t.Helper()
	names, err := os.ReadDir(filepath.Join(r.Path(), s.path))
	recovertest.Must(s.t, err)
	var got string
	for _, n := range names {
		got += n.Name()
	}
	if got != file || (r.Name() == "") != (file == "") {
		s.t.Errorf("the root shows %q and is called %q (%s), want %q", got, r.Name(), r.Note(), file)
	}
}

func TestTheRootIsLibvirtsOnlyWhereItsInstancesDirectoryIsAnother(t *testing.T) {
	for mounted, want := range map[string]string{"": "", "same": "", "theirs": "theirs"} {
		t.Run("mounted "+mounted, func(t *testing.T) {
			s := newScene(t)
			s.start("libvirtd", mounted)
			s.shows(s.find(), want)
		})
	}
}

func TestOfSeveralLibvirtsTheOneBehindTheSocketCounts(t *testing.T) {
	s := newScene(t)
	s.start("libvirtd", "first")
	second := s.start("virtqemud", "second")
	r := s.find()
	s.shows(r, "")
	if !strings.Contains(r.Note(), "set root") {
		t.Errorf("the note is %q", r.Note())
	}
	pid := second.Process.Pid
	s.o.Daemon = func(context.Context) int { return pid }
	s.shows(s.find(), "second")
	systemd := s.start("systemd", "activated")
	pid = systemd.Process.Pid // socket activation: what listens is no libvirt
	s.shows(s.find(), "")
}

func TestARootIsFoundAnewWhenLibvirtWasRestarted(t *testing.T) {
	s := newScene(t)
	first := s.start("libvirtd", "first")
	r := s.find()
	s.shows(r, "first")
	path := r.Path()
	s.end(first)
	s.shows(r, "first") // its namespace lives on until the root is found anew
	s.start("libvirtd", "second")
	recovertest.Must(t, r.Refresh(t.Context()))
	s.shows(r, "second")
	if r.Path() != path {
		t.Errorf("the path has changed from %s to %s", path, r.Path())
	}
}

func TestARootFollowsAMountOfTheHost(t *testing.T) {
	s := newScene(t)
	s.start("libvirtd", "same")
	r := s.find()
	s.shows(r, "")
	// In this process's own namespace, from which libvirtd's has parted.
	recovertest.Must(t, unix.Mount("tmpfs", s.path, "tmpfs", 0, ""))
	defer func() { recovertest.Must(t, unix.Unmount(s.path, 0)) }()
	recovertest.Must(t, r.Refresh(t.Context()))
	if r.Name() == "" {
		t.Error("what libvirt sees is another directory now, and the root is still this process's own")
	}
}

// On libvirt 11 the pid files are in a directory of QEMU's user.
func TestAProcessInAUserNamespaceOfItsOwnTellsNoRoot(t *testing.T) {
	s := newScene(t)
	s.uid = 65534
	planted := s.start("qemu-system-x86", "same", "-uuid", "u")
	recovertest.Must(t, os.WriteFile(filepath.Join(s.o.RunDir, "i.pid"), fmt.Appendln(nil, planted.Process.Pid), 0o644))
	r := s.find()
	s.shows(r, "")
	if !strings.Contains(r.Note(), "neither libvirt nor a QEMU") {
		t.Errorf("the note is %q", r.Note())
	}
}

func TestWhileLibvirtIsDownTheQEMUsTellTheRoot(t *testing.T) {
	s := newScene(t)
	r := s.find()
	s.shows(r, "")
	if !strings.Contains(r.Note(), "neither libvirt nor a QEMU") {
		t.Errorf("the note is %q", r.Note())
	}
	qemu := s.start("qemu-system-x86", "guests", "-uuid", "u")
	recovertest.Must(t, os.WriteFile(filepath.Join(s.o.RunDir, "i.pid"), fmt.Appendln(nil, qemu.Process.Pid), 0o644))
	stranger := s.start("stranger", "strange")
	recovertest.Must(t, os.WriteFile(filepath.Join(s.o.RunDir, "stale.pid"), fmt.Appendln(nil, stranger.Process.Pid), 0o644))
	recovertest.Must(t, r.Refresh(t.Context()))
	s.shows(r, "guests")
	if !strings.Contains(r.Note(), "libvirt does not run") {
		t.Errorf("the note is %q", r.Note())
	}
	s.start("libvirtd", "daemons")
	recovertest.Must(t, r.Refresh(t.Context()))
	s.shows(r, "daemons")
}

func TestAnInstancesDirectoryThatOneSideLacksIsAnother(t *testing.T) {
	s := newScene(t)
	s.start("libvirtd", "theirs")
	recovertest.Must(t, os.RemoveAll(s.path)) // a mount point that is removed detaches the mount: a purge on both sides
	s.o.InstancesPath = filepath.Join(s.path, "below")
	if r := s.find(); r.Name() != "" {
		t.Errorf("nothing is there in either, but the root is %q", r.Name())
	}
}

// TestALibvirtThatIsNotRootsShowsNoRoot: everybody can run a process of that name, and give it
// mounts of its own in a user namespace.
func TestALibvirtThatIsNotRootsShowsNoRoot(t *testing.T) {
	for _, uid := range []uint32{54321, 0} {
		s := newScene(t)
		recovertest.Must(t, os.Chmod(filepath.Dir(filepath.Dir(s.path)), 0o755))
		s.uid = uid
		evil := s.start("libvirtd", "evil")
		want := ""
		if uid == 0 {
			want = "evil"
		}
		s.shows(s.find(), want)
		s.o.Daemon = func(context.Context) int { return evil.Process.Pid }
		s.shows(s.find(), want)
	}
}
