package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Holdings are the held files that a server gives access to. They are safe for
// concurrent use.
type Holdings interface {
	// Hold takes ownership of the file, and closes it if it returns an error.
	Hold(owner, key string, meta json.RawMessage, f *os.File) error
	// List returns the held files, the oldest first.
	List() []Hold
	// Open returns a held file, which still belongs to the holdings; fs.ErrNotExist
	// when the key is not held.
	Open(key string) (*os.File, error)
	// Release says that an owner no longer needs the keys, or, without keys,
	// anything. The reason is the client's, and may be empty.
	Release(owner string, keys []string, reason ReleaseReason) error
}

// server answers clients' requests with its holdings.
type server struct {
	dir      string // its state directory, as its clients are told
	holdings Holdings
	log      zerolog.Logger
	join     func() bool // counts a client in; if false, it is sent away
	leave    func()
	status   func() []json.RawMessage // nil: it has none
}

func (k *server) accept(ctx context.Context, l *net.UnixListener, clients *sync.WaitGroup) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			k.log.Error().Err(err).Msg("can't accept a client")
			select { // out of descriptors: those held matter more than the next client
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if !k.join() {
			conn.Close()
			continue
		}
		clients.Go(func() {
			defer k.leave()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			k.talk(ctx, conn)
		})
	}
}

// talk serves one client until it disconnects.
func (k *server) talk(ctx context.Context, conn *net.UnixConn) {
	cred, err := peer(conn)
	if err != nil || cred.Uid != 0 {
		k.log.Error().Err(err).Any("peer", cred).Msg("refused a client that is not root")
		return
	}
	buf := make([]byte, maxMessage)
	births := false // the client knows keys with births
	for {
		data, f, err := receive(conn, buf)
		var bad *messageError
		var r request
		if errors.As(err, &bad) {
			err = respond(conn, reply{Error: bad.Error()}, nil)
		} else if err == nil {
			if r, err = parseRequest(data); err != nil {
				if f != nil {
					f.Close()
				}
				err = respond(conn, reply{Error: err.Error()}, nil)
			} else {
				births = births || r.Births
				err = k.answer(conn, r, f, births)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) && ctx.Err() == nil {
				k.log.Error().Err(err).Msg("lost a client")
			}
			return
		}
	}
}

// answer carries out a request. Only a broken connection is an error.
func (k *server) answer(conn *net.UnixConn, r request, f *os.File, births bool) error {
	if f != nil && r.Op != opHold {
		f.Close()
		return respond(conn, reply{Error: "a descriptor came with a request that takes none"}, nil)
	}
	var err error
	switch r.Op {
	case opHello:
		return respond(conn, reply{Protocol: protocolVersion, Births: true, Dir: k.dir}, nil)
	case opHold:
		if f == nil {
			err = errors.New("no descriptor came with the request")
			break
		}
		err = k.holdings.Hold(r.Owner, r.Key, r.Meta, f)
	case opList:
		for _, hold := range k.holdings.List() {
			if !births {
				hold.Key = unborn(hold.Key)
			}
			if err := respond(conn, reply{Hold: &hold}, nil); errors.Is(err, errTooLong) {
				k.log.Error().Err(err).Str("key", hold.Key).Msg("a held file is not listed")
			} else if err != nil {
				return err
			}
		}
		return respond(conn, reply{End: true}, nil)
	case opStatus:
		if k.status == nil {
			err = errors.New("a keeper has no status")
			break
		}
		for _, part := range k.status() {
			if err := respond(conn, reply{Status: part}, nil); err != nil {
				return err
			}
		}
		return respond(conn, reply{End: true}, nil)
	case opOpen:
		var held *os.File
		if held, err = k.holdings.Open(r.Key); err == nil {
			err = respond(conn, reply{}, held)
			if errors.Is(err, os.ErrClosed) { // released meanwhile
				err = fmt.Errorf("the file %s is not held: %w", r.Key, fs.ErrNotExist)
				break
			}
			return err
		}
	case opRelease:
		err = k.holdings.Release(r.Owner, r.Keys, r.Reason)
	}
	if err != nil {
		return respond(conn, reply{Error: err.Error(), Missing: errors.Is(err, fs.ErrNotExist)}, nil)
	}
	return respond(conn, reply{}, nil)
}

func respond(conn *net.UnixConn, r reply, f *os.File) error {
	data, err := encode(r)
	if err == nil {
		err = conn.SetWriteDeadline(time.Now().Add(readTime))
	}
	if err != nil {
		return err
	}
	return send(conn, data, f)
}

// readTime bounds the wait for a client that does not read its answer.
const readTime = time.Minute
