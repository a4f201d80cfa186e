package beneath

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// peer is a process that holds something until it is told to stop.
type peer struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startPeer(t *testing.T, name string, args ...string) *peer {
	t.Helper()
	cmd := exec.Command(name, args...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("this test needs %s: %v", name, err)
	}
	p := &peer{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(p.stop)
	return p
}

func (p *peer) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	must(p.t, err)
	return line[:len(line)-1]
}

func (p *peer) stop() {
	p.in.Close()
	io.Copy(io.Discard, p.out)
	p.cmd.Wait()
}

// novaLock takes the lock as fasteners' InterProcessLock does and prints the result.
const novaLock = `
import fcntl, sys
f = open(sys.argv[1], 'a')
try:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print('locked', flush=True)
except OSError as e:
    print('busy', flush=True)
sys.stdin.read()
`

func TestNovaAndWeKeepEachOtherOut(t *testing.T) {
	dir, path := openTestDir(t)
	owner := Owner{UID: nobody, GID: nobody, Mode: 0o644}
	unlock, err := Lock(t.Context(), dir, "abc", owner)
	must(t, err)
	wantOwner(t, path+"/nova-abc", nobody, nobody, 0o644)

	nova := startPeer(t, "python3", "-c", novaLock, path+"/nova-abc")
	if got := nova.line(); got != "busy" {
		t.Fatalf("while we hold the lock, Nova is %q", got)
	}
	nova.stop()
	must(t, unlock())
	must(t, unlock())
	nova = startPeer(t, "python3", "-c", novaLock, path+"/nova-abc")
	if got := nova.line(); got != "locked" {
		t.Fatalf("after unlock, Nova is %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	if _, err := Lock(ctx, dir, "abc", owner); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("while Nova holds the lock: %v", err)
	}
	got := make(chan error)
	go func() {
		unlock, err := Lock(t.Context(), dir, "abc", owner)
		if err == nil {
			err = unlock()
		}
		got <- err
	}()
	nova.stop()
	must(t, <-got)
}

func TestLockKeepsAFileThatIsThereAndFollowsOneThatIsReplaced(t *testing.T) {
	dir, path := openTestDir(t)
	build(t, path, "f nova-abc")
	must(t, os.Chown(path+"/nova-abc", 12, 13))
	nova := startPeer(t, "python3", "-c", novaLock, path+"/nova-abc")
	nova.line()
	got := make(chan error)
	go func() {
		unlock, err := Lock(t.Context(), dir, "abc", Owner{UID: nobody, GID: nobody, Mode: 0o644})
		if err == nil {
			// The locked file is the one that has the name now.
			other := startPeer(t, "python3", "-c", novaLock, path+"/nova-abc")
			if line := other.line(); line != "busy" {
				err = fmt.Errorf("we hold the lock, and Nova is %q", line)
			}
			other.stop()
			err = errors.Join(err, unlock())
		}
		got <- err
	}()
	time.Sleep(3 * lockPoll)
	wantOwner(t, path+"/nova-abc", 12, 13, 0o644)
	must(t, os.Remove(path+"/nova-abc")) // as remove_external_lock_file does
	nova.stop()
	must(t, <-got)
	wantOwner(t, path+"/nova-abc", nobody, nobody, 0o644)
	names, err := dir.Names()
	must(t, err)
	if len(names) != 1 {
		t.Errorf("left %q", names)
	}
}

func TestLockNeverFollowsAPlantedLockFile(t *testing.T) {
	dir, path := openTestDir(t)
	build(t, path, "f secret", "l nova-abc 65534 secret")
	must(t, unix.Mkfifo(path+"/nova-fifo", 0o666))
	for name, want := range map[string]error{"abc": ErrSymlink, "fifo": ErrNotRegular} {
		if _, err := Lock(t.Context(), dir, name, Owner{UID: nobody, GID: nobody, Mode: 0o644}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	wantOwner(t, path+"/secret", 0, 0, 0o644)
}

func TestOnlyOneOfManyHoldsTheLock(t *testing.T) {
	dir, _ := openTestDir(t)
	var inside atomic.Int32
	errs := make(chan error)
	for range 8 {
		go func() {
			unlock, err := Lock(t.Context(), dir, "abc", Owner{Mode: 0o644})
			if err == nil {
				if inside.Add(1) != 1 {
					err = errors.New("two hold the lock")
				}
				inside.Add(-1)
				err = errors.Join(err, unlock())
			}
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
