package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
)

// Errors of requests, for errors.Is. A key that is not held is fs.ErrNotExist.
var (
	// ErrNoKeeper: no keeper runs, or the client's keeper has ended.
	ErrNoKeeper = errors.New("no keeper runs")
	// ErrSilent: a keeper or a guard runs, and does not answer as it must: it is stopped, hangs, or is out of its mind.
	ErrSilent = errors.New("it does not answer")
	// ErrRefused: the keeper refused the request; its holdings did not change.
	ErrRefused = errors.New("the keeper refused")
)

// errTooLong: nothing of the message was sent.
var errTooLong = errors.New("too long a message")

const (
	protocolVersion = 1
	// maxMessage is below the default limit of a Unix socket for one message
	// (net.core.wmem_default, 212,992 bytes).
	maxMessage = 128 << 10
	maxMeta    = 64 << 10
	maxOwner   = 256
	// keysPerMessage bounds a release: a key has at most 299 bytes.
	keysPerMessage = 400
)

// Hold describes one file that the keeper holds.
type Hold struct {
	Key       string          `json:"key"`            // as Key returns it
	Owners    []string        `json:"owners"`         // the instances that it is held for, sorted
	Meta      json.RawMessage `json:"meta,omitempty"` // from the latest Hold call; the keeper never reads it
	Since     time.Time       `json:"since"`          // the time of the first Hold call
	Size      int64           `json:"size"`           // bytes
	Allocated int64           `json:"allocated"`      // bytes on disk
	Links     uint64          `json:"links"`          // names that the file has; 0: deleted
}

// Key returns the key of an open file (recover.Inode.Key). Where a key is asked for, one
// without a birth is good too: of the file of its number that is held. So did releases
// write keys that knew no births.
func Key(f *os.File) (string, error) {
	st, err := stat(f)
	if err != nil {
		return "", err
	}
	return st.Inode().Key(), nil
}

func stat(f *os.File) (identity.Status, error) {
	st, err := identity.OfFile(f)
	if err != nil {
		return st, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return st, nil
}

// names is true when the key is that of the held file.
func names(key string, file recover.Inode) bool {
	i, ok := recover.ParseKey(key)
	return ok && i.Is(file, true)
}

// Names is true when one of the keys is that of the file, which is held.
func Names(keys []string, file recover.Inode) bool {
	return slices.ContainsFunc(keys, func(key string) bool { return names(key, file) })
}

// unborn is a key without its birth, for the other side of a release that knew none.
func unborn(key string) string {
	i, ok := recover.ParseKey(key)
	if !ok {
		return key
	}
	return i.Unborn().Key()
}

// Control calls do with the descriptor, which stays open meanwhile, and again when a
// signal interrupts it.
func Control(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	if err := c.Control(func(fd uintptr) {
		for {
			if derr = do(int(fd)); !errors.Is(derr, unix.EINTR) {
				return
			}
		}
	}); err != nil {
		return err
	}
	return derr
}

// The operations.
const (
	opHello   = "hello"
	opHold    = "hold" // with one descriptor
	opList    = "list" // answered by a reply for each hold and one with End
	opOpen    = "open" // answered with one descriptor
	opRelease = "release"
	opStatus  = "status" // answered like list, by replies with Status
)

type request struct {
	Op       string          `json:"op"`
	Protocol int             `json:"protocol,omitempty"`
	Births   bool            `json:"births,omitempty"` // of a hello: the client knows keys with births
	Owner    string          `json:"owner,omitempty"`
	Key      string          `json:"key,omitempty"`
	Keys     []string        `json:"keys,omitempty"`
	Meta     json.RawMessage `json:"meta,omitempty"`
	Reason   ReleaseReason   `json:"reason,omitempty"` // of a release
}

type reply struct {
	Error    string `json:"error,omitempty"`
	Missing  bool   `json:"missing,omitempty"` // the error is that the key is not held
	Protocol int    `json:"protocol,omitempty"`
	Births   bool   `json:"births,omitempty"` // to a hello: the server knows keys with births
	Dir      string `json:"dir,omitempty"`    // to a hello: the server's state directory
	Hold     *Hold  `json:"hold,omitempty"`
	End      bool   `json:"end,omitempty"`

	Status json.RawMessage `json:"status,omitempty"`
}

func (r reply) err() error {
	switch {
	case r.Missing:
		return fmt.Errorf("%s: %w", r.Error, fs.ErrNotExist)
	case r.Error != "":
		return fmt.Errorf("%w: %s", ErrRefused, r.Error)
	}
	return nil
}

// parseRequest reads and checks a message from a client.
func parseRequest(data []byte) (request, error) {
	var r request
	if err := decode(data, &r); err != nil {
		return request{}, err
	}
	var errs []error
	want := func(ok bool, problem string) {
		if !ok {
			errs = append(errs, errors.New(problem))
		}
	}
	operations := []string{opHello, opHold, opList, opOpen, opRelease, opStatus}
	want(slices.Contains(operations, r.Op), "unknown operation "+strconv.Quote(r.Op))
	if r.Op == opHold || r.Op == opRelease {
		isControl := func(c rune) bool { return c < ' ' }
		want(r.Owner != "" && len(r.Owner) <= maxOwner && !strings.ContainsFunc(r.Owner, isControl), "no usable owner")
	}
	if r.Op == opHold || r.Op == opOpen {
		want(validKey(r.Key), "bad key "+strconv.Quote(r.Key))
	}
	for _, key := range r.Keys {
		want(validKey(key), "bad key "+strconv.Quote(key))
	}
	want(len(r.Reason) <= maxOwner, "too long a reason")
	want(len(r.Meta) <= maxMeta, fmt.Sprintf("more than %d bytes of meta data", maxMeta))
	return r, errors.Join(errs...)
}

func parseReply(data []byte) (reply, error) {
	var r reply
	if err := decode(data, &r); err != nil {
		return reply{}, err
	}
	if r.Hold != nil && !validKey(r.Hold.Key) {
		return reply{}, fmt.Errorf("bad key %q", r.Hold.Key)
	}
	return r, nil
}

func decode(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("malformed message: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("malformed message: more than one value")
	}
	return nil
}

func validKey(key string) bool {
	_, ok := recover.ParseKey(key)
	return ok
}

// encode makes one message of a value, of at most maxMessage bytes.
func encode(message any) ([]byte, error) {
	data, err := json.Marshal(message)
	if err == nil && len(data) > maxMessage {
		err = fmt.Errorf("%w: %d bytes, over the limit of %d", errTooLong, len(data), maxMessage)
	}
	return data, err
}

// send writes one message, with a descriptor if f is not nil.
func send(conn *net.UnixConn, data []byte, f *os.File) error {
	if f == nil {
		_, _, err := conn.WriteMsgUnix(data, nil, nil)
		return err
	}
	return Control(f, func(fd int) error {
		_, _, err := conn.WriteMsgUnix(data, unix.UnixRights(fd), nil)
		return err
	})
}

// receive reads one message into buf, and the descriptor that came with it, if any.
// io.EOF when the other side has closed the connection.
func receive(conn *net.UnixConn, buf []byte) ([]byte, *os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob) // sets MSG_CMSG_CLOEXEC
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, ferr := unix.ParseUnixRights(&m)
		err = errors.Join(err, ferr)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received from the keeper's socket"))
		}
	}
	switch {
	case err != nil:
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("a message of more than %d bytes", len(buf))
	case len(files) > 1:
		err = errors.New("more than one descriptor in a message")
	case flags&unix.MSG_CTRUNC != 0:
		// The kernel sets this flag when there is no room for one more descriptor.
		err = errors.New("a descriptor was lost on the way: too many open files")
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, nil, &messageError{err}
	}
	if len(files) == 0 {
		return buf[:n], nil, nil
	}
	return buf[:n], files[0], nil
}

// messageError is an error in one message; the connection is still usable.
type messageError struct{ err error }

func (e *messageError) Error() string { return e.err.Error() }
func (e *messageError) Unwrap() error { return e.err }

// peer returns the credentials of the process at the other end of a socket.
func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	c, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := c.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, cerr
}
