package keeper

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// A keeper outlives the release that started it, and so may its clients.
func TestAKeyWithoutABirthNamesTheFileThatIsHeld(t *testing.T) {
	c := start(t, stateDir(t))
	ctx := t.Context()
	f, key := deleted(t, "disk")
	if strings.Count(key, ":") != 2 {
		t.Fatalf("the key %q has no birth", key)
	}
	must(t, c.Hold(ctx, "a", unborn(key), nil, f))
	must(t, c.Hold(ctx, "b", key, nil, f))
	list, err := c.List(ctx)
	must(t, err)
	if len(list) != 1 || list[0].Key != key || len(list[0].Owners) != 2 {
		t.Fatalf("it holds %+v", list)
	}
	i, _ := recover.ParseKey(key)
	i.Birth += "1"
	if _, err := c.Open(ctx, i.Key()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of another birth: %v", err)
	}
	if err := c.Hold(ctx, "a", i.Key(), nil, f); !errors.Is(err, ErrRefused) {
		t.Errorf("held under another birth: %v", err)
	}
	must(t, c.Release(ctx, "a", i.Key())) // nobody's
	for _, key := range []string{key, unborn(key)} {
		if got := content(t, c, key); got != "disk" {
			t.Errorf("%s is %q", key, got)
		}
	}
	must(t, c.Release(ctx, "a", unborn(key)))
	must(t, c.Release(ctx, "b", key))
	if _, err := c.Open(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after both released it: %v", err)
	}
}

func TestAKeeperOfAReleaseThatKnewNoBirthsIsAskedWithout(t *testing.T) {
	dir := stateDir(t)
	f, key := deleted(t, "disk")
	start(t, dir)
	c := start(t, dir)
	c.births = false // as if its hello had said nothing of them
	for _, got := range c.keys(key, "1:2:b3", "1:2") {
		if strings.Count(got, ":") != 1 {
			t.Errorf("it would be asked for %q", got)
		}
	}
	must(t, c.Hold(t.Context(), "a", key, nil, f))
	if got := content(t, c, key); got != "disk" {
		t.Errorf("it is %q", got)
	}
	must(t, c.Release(t.Context(), "a", key))
	if _, err := c.Open(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it was released: %v", err)
	}
}

func TestAClientOfAReleaseThatKnewNoBirthsIsAnsweredWithout(t *testing.T) {
	dir := stateDir(t)
	f, key := deleted(t, "disk")
	must(t, start(t, dir).Hold(t.Context(), "a", key, nil, f))
	t.Chdir(dir) // a socket's path has at most 108 bytes (unix(7))
	var dialer net.Dialer
	conn, err := dialer.DialContext(context.Background(), "unixpacket", socketName)
	must(t, err)
	old := &Client{conn: conn.(*net.UnixConn), buf: make([]byte, maxMessage), limit: answerTime}
	defer old.Close()
	_, err = old.ask(t.Context(), request{Op: opHello, Protocol: protocolVersion})
	must(t, err)
	list, err := old.List(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].Key != unborn(key) {
		t.Errorf("it is told of %+v", list)
	}
}
