package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

const (
	// startTime bounds Start's wait for a keeper.
	startTime = 30 * time.Second
	startPoll = 20 * time.Millisecond
	// answerTime bounds the wait for each answer of a keeper's. One that only was slow goes on
	// holding what it holds, beside another that takes its place.
	answerTime = 5 * time.Second
	// againTime bounds Start's wait for the next answer, when there was none before: by then
	// another keeper may have the place.
	againTime = 500 * time.Millisecond
	// guardTime is the same for a guard, which has more to do. It says at once who it is, too.
	guardTime = 10 * time.Second
	// streamTime and streamBytes bound an answer of many messages, each of which may be in time.
	streamTime  = 30 * time.Second
	streamBytes = 32 << 20
)

// Client is a connection to a keeper or a guard. It is safe for concurrent use;
// requests go one after the other. A keeper never ends by itself while a client is
// connected. If it was ended, or a context ended in the middle of a request, all
// further methods of the client return ErrNoKeeper. Each waits for an answer for some
// seconds, and then returns ErrSilent: also for an answer that is malformed, or without an end.
type Client struct {
	pid    int
	dir    string        // the server's state directory; empty for one of an earlier release
	births bool          // the server knows keys with births
	limit  time.Duration // of the wait for an answer

	mu   sync.Mutex
	conn *net.UnixConn // nil once it is broken or closed
	buf  []byte
}

// Connect connects to the keeper of a state directory. ErrNoKeeper when none runs, ErrSilent when
// it does not answer.
func Connect(ctx context.Context, dir string) (*Client, error) {
	c, err := connect(ctx, dir, socketName, answerTime)
	if err != nil {
		return nil, fmt.Errorf("connect to the keeper in %s: %w", dir, err)
	}
	return c, nil
}

func connect(ctx context.Context, path, socket string, limit time.Duration) (*Client, error) {
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, orNoKeeper(err)
	}
	defer dir.Close()
	c, err := dial(ctx, within(dir, socket))
	if err == nil {
		c.limit = min(limit, answerTime)
		err = c.greet(ctx)
	}
	if err != nil {
		return nil, err
	}
	c.limit = limit
	return c, nil
}

// dial connects to a socket, whose other side has to be a process of root's.
func dial(ctx context.Context, at string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unixpacket", at)
	if err != nil {
		return nil, orNoKeeper(err)
	}
	c := &Client{conn: conn.(*net.UnixConn)}
	cred, err := peer(c.conn)
	if err == nil && cred.Uid != 0 {
		err = fmt.Errorf("%w: its socket belongs to a process of uid %d, not root's", ErrRefused, cred.Uid)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.pid, c.buf = int(cred.Pid), make([]byte, maxMessage)
	return c, nil
}

// greet asks the other side who it is. It closes the client of one that can't be used.
func (c *Client) greet(ctx context.Context) error {
	hello, err := c.ask(ctx, request{Op: opHello, Protocol: protocolVersion, Births: true})
	if err == nil && hello.Protocol != protocolVersion {
		err = fmt.Errorf("%w: it speaks version %d of the protocol, and this os-rescue version %d; "+
			"it is of another release, and ends when its files are released",
			ErrRefused, hello.Protocol, protocolVersion)
	}
	if err != nil {
		c.Close()
		return err
	}
	c.births, c.dir = hello.Births, hello.Dir
	return nil
}

// keys returns keys as the server knows them.
func (c *Client) keys(keys ...string) []string {
	if c.births {
		return keys
	}
	known := make([]string, len(keys))
	for n, key := range keys {
		known[n] = unborn(key)
	}
	return known
}

// orNoKeeper adds ErrNoKeeper to an error that means that nobody is there, and ErrSilent to one
// that means that somebody is there and does not answer.
func orNoKeeper(err error) error {
	// EAGAIN: more connections wait than its socket takes (unix(7)).
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w (%w)", ErrSilent, err)
	}
	for _, gone := range []error{fs.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF, net.ErrClosed} {
		if errors.Is(err, gone) {
			return fmt.Errorf("%w (%w)", ErrNoKeeper, err)
		}
	}
	return err
}

// Start connects to the keeper of Options.Dir, or starts Options.Command, detached
// from this process, and waits at most 30 s until it answers. Concurrent calls, also
// of several processes, all get the same keeper. The command gets no environment but
// PATH, because ours may contain secrets, and it is never killed, not even when the
// context ends. The place of a keeper that does not answer is given to another one.
// ErrRefused when the keeper speaks another version of the protocol.
func Start(ctx context.Context, o Options) (*Client, error) {
	fail := func(err error) (*Client, error) {
		return nil, fmt.Errorf("start the keeper in %s: %w", o.Dir, err)
	}
	dir, err := openStateDir(o.Dir)
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	poll := time.NewTicker(startPoll)
	defer poll.Stop()
	var child <-chan error // nil when none of ours is running
	var ended error
	limit := answerTime
	for {
		c, err := connect(ctx, o.Dir, socketName, limit)
		if err == nil {
			c.limit = answerTime
			return c, nil
		}
		if errors.Is(err, ErrSilent) {
			limit = againTime
		}
		if !errors.Is(err, ErrNoKeeper) && !errors.Is(err, ErrSilent) && ctx.Err() == nil {
			return fail(err)
		}
		// A child that found another keeper's lock has ended. That keeper may have been
		// ending too, so another child is needed. The place of one that is silent is the child's.
		if child == nil && ctx.Err() == nil {
			if err = canServe(dir); err == nil {
				child, err = spawn(ctx, o.Command)
			}
			if err != nil {
				return fail(err)
			}
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("it does not answer; see %s: %w", filepath.Join(o.Dir, logName), ctx.Err())
			return fail(errors.Join(err, ended))
		case ended = <-child:
			child = nil
		case <-poll.C:
			continue
		}
		select { // at most one child per tick
		case <-ctx.Done():
		case <-poll.C:
		}
	}
}

// spawn starts the command in its own session. The channel receives its exit error.
func spawn(ctx context.Context, command []string) (<-chan error, error) {
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		return nil, fmt.Errorf("the command %q: %w", command, fs.ErrInvalid)
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	zerolog.Ctx(ctx).Debug().Int("pid", cmd.Process.Pid).Str("command", strings.Join(command, " ")).Msg("keeper spawned")
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%s: %w", strings.Join(command, " "), err)
		}
		ended <- err
	}()
	return ended, nil
}

// PID is the keeper's process ID.
func (c *Client) PID() int { return c.pid }

// Close closes the connection; the keeper's holdings stay. It may be called twice.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shut()
}

func (c *Client) shut() error {
	if c.conn == nil {
		return nil
	}
	conn := c.conn
	c.conn = nil
	return conn.Close()
}

// Hold gives the keeper a file to hold for an owner: a regular file, open for
// reading only, with this key (see Key). When Hold returns nil, the keeper has
// checked the file and has its own descriptor; f can be closed. If the file is
// already held, the owner is added, and meta, at most 64 KiB of JSON, replaces the
// previous one unless it is nil. ErrRefused when the keeper does not accept the file.
//
// f is opened for this, and is a duplicate of QEMU's descriptor only where the file can't be
// opened anew and has no name any more: a duplicate keeps QEMU's locks on the file as well.
func (c *Client) Hold(ctx context.Context, owner, key string, meta json.RawMessage, f *os.File) error {
	_, err := usable(f, key)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrRefused, err) // the keeper checks the same again
	} else {
		_, _, err = c.roundTrip(ctx, request{Op: opHold, Owner: owner, Key: c.keys(key)[0], Meta: meta}, f)
	}
	if err != nil {
		return fmt.Errorf("give the keeper %s (%s) to hold: %w", f.Name(), key, err)
	}
	return nil
}

// List returns all files that the keeper holds, the oldest first.
func (c *Client) List(ctx context.Context) ([]Hold, error) {
	var list []Hold
	err := c.stream(ctx, opList, func(r reply) {
		if r.Hold != nil {
			list = append(list, *r.Hold)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("ask the keeper for its files: %w", err)
	}
	return list, nil
}

// stream sends a request that is answered by several replies.
func (c *Client) stream(ctx context.Context, op string, take func(reply)) error {
	data, err := encode(request{Op: op})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var refused error // the connection stays usable
	end := time.Now().Add(streamTime)
	bytes := 0
	err = c.exclusively(ctx, func(conn *net.UnixConn) error {
		err := send(conn, data, nil)
		for err == nil && refused == nil {
			var r reply
			var f *os.File
			var n int
			r, f, n, err = c.read(conn)
			if f != nil {
				f.Close()
			}
			if err != nil || r.End {
				break
			}
			if bytes += n; bytes > streamBytes || time.Now().After(end) {
				return garbled(fmt.Errorf("its answer has no end: %d bytes", bytes))
			}
			if refused = r.err(); refused == nil {
				take(r)
				err = conn.SetDeadline(earlier(end, time.Now().Add(c.limit))) // it is at it
			}
		}
		return err
	})
	return errors.Join(err, refused)
}

// Open returns a descriptor of a file that the keeper holds; fs.ErrNotExist when it
// does not hold the key. The descriptor shares offset and status flags with the
// keeper's: read with ReadAt, and open /proc/self/fd/N again for O_DIRECT.
func (c *Client) Open(ctx context.Context, key string) (*os.File, error) {
	_, f, err := c.roundTrip(ctx, request{Op: opOpen, Key: c.keys(key)[0]}, nil)
	if err == nil && f == nil {
		err = fmt.Errorf("%w: no descriptor came", ErrRefused)
	}
	if err == nil {
		var got identity.Status
		if got, err = stat(f); err == nil && !names(key, got.Inode()) {
			err = fmt.Errorf("%w: the file %s came", ErrRefused, got.Inode().Key())
		}
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("get the file %s from the keeper: %w", key, err)
	}
	return f, nil
}

// Release says that an owner no longer needs the keys, or, without keys, anything.
// The keeper closes a file that has no owner left, which frees its space if nobody
// else has it open. Keys that the owner does not own are ignored.
func (c *Client) Release(ctx context.Context, owner string, keys ...string) error {
	return c.ReleaseFor(ctx, "", owner, keys...)
}

// ReleaseFor is Release with a reason. A guard counts releases by their reason.
func (c *Client) ReleaseFor(ctx context.Context, reason ReleaseReason, owner string, keys ...string) error {
	for first := true; first || len(keys) > 0; first = false {
		part := keys[:min(len(keys), keysPerMessage)]
		keys = keys[len(part):]
		if _, err := c.ask(ctx, request{Op: opRelease, Owner: owner, Keys: c.keys(part...), Reason: reason}); err != nil {
			return fmt.Errorf("release the keeper's files of %s: %w", owner, err)
		}
	}
	return nil
}

func (c *Client) ask(ctx context.Context, r request) (reply, error) {
	answer, f, err := c.roundTrip(ctx, r, nil)
	if f != nil {
		f.Close()
	}
	return answer, err
}

// roundTrip sends one request and reads one reply.
func (c *Client) roundTrip(ctx context.Context, r request, f *os.File) (answer reply, got *os.File, err error) {
	data, err := encode(r)
	if err == nil {
		_, err = parseRequest(data)
	}
	if err != nil {
		return reply{}, nil, fmt.Errorf("%w: %w", ErrRefused, err) // as the keeper would
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.exclusively(ctx, func(conn *net.UnixConn) (err error) {
		if err := send(conn, data, f); err != nil {
			return err
		}
		answer, got, _, err = c.read(conn)
		return err
	})
	if err == nil {
		err = answer.err()
	}
	if err != nil && got != nil {
		got.Close()
		got = nil
	}
	return answer, got, err
}

// exclusively runs an exchange; c.mu is held. If the exchange fails or is
// interrupted, the connection may have stopped inside a message and is closed.
func (c *Client) exclusively(ctx context.Context, exchange func(*net.UnixConn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn := c.conn
	if conn == nil {
		return fmt.Errorf("%w: the connection is closed", ErrNoKeeper)
	}
	err := conn.SetDeadline(time.Now().Add(c.limit))
	if err == nil && isStopped(c.pid) {
		err = fmt.Errorf("%w: process %d is stopped (kill -CONT %[2]d lets it go on)", ErrSilent, c.pid)
	}
	if err != nil {
		_ = c.shut()
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = exchange(conn)
	if !stop() {
		c.conn = nil
		if err != nil {
			return ctx.Err()
		}
		return nil
	}
	if err != nil {
		_ = c.shut() // err says what happened
	}
	return orNoKeeper(err)
}

// isStopped is true for a process that a signal has stopped: nobody need wait for its answer
// (the state in proc_pid_stat(5), after the command name, which may contain anything).
func isStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) //nolint:gosec // a number
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return err == nil && len(fields) > 0 && string(fields[0]) == "T"
}

// read reads one reply of so many bytes. ErrSilent for a message that is none.
func (c *Client) read(conn *net.UnixConn) (r reply, f *os.File, bytes int, err error) {
	data, f, err := receive(conn, c.buf)
	var bad *messageError
	if errors.As(err, &bad) {
		err = garbled(err)
	}
	if err != nil {
		return reply{}, nil, 0, err
	}
	if r, err = parseReply(data); err != nil {
		if f != nil {
			f.Close()
		}
		return reply{}, nil, 0, garbled(err)
	}
	return r, f, len(data), nil
}

// garbled is the error of an answer that is none: it is as good as silence.
func garbled(err error) error { return fmt.Errorf("%w as it must: %w", ErrSilent, err) }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// AwaitEnd returns nil when the process of a client's keeper (Client.PID) has ended, else the
// context's error, or that of pidfd_open(2). It notices the end at once.
func AwaitEnd(ctx context.Context, pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	const tick = 200 // milliseconds, after which the context is looked at
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, tick)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return ctx.Err()
}
