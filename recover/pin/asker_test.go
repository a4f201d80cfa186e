package pin

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestASilentGuardIsAskedOncePerCommandAndNotForLong(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unixpacket", filepath.Join(dir, "guard.sock"))
	recovertest.Must(t, err)
	defer l.Close()
	// Beside a keeper of another test's that hangs, for which everybody waits five seconds.
	const limit = 12 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), patience.Of(limit))
	defer cancel()
	list := Lister(dir, nil)
	silent := func(ctx context.Context) {
		t.Helper()
		var fault *GuardFault
		if _, err := list(ctx); !errors.As(err, &fault) || !errors.Is(err, keeper.ErrSilent) {
			t.Fatalf("it says %v", err)
		}
	}
	begun := time.Now()
	silent(ctx)
	if took := time.Since(begun); took > patience.Of(limit)*2/3 {
		t.Errorf("of %s it took %s", patience.Of(limit), took)
	}
	recovertest.Must(t, l.Close()) // whoever asked now would find none
	silent(t.Context())

	list = Lister(dir, nil)
	if pins, err := list(t.Context()); len(pins) > 0 || err != nil {
		t.Errorf("another command: %v, %v", pins, err)
	}
	var fault *GuardFault
	if _, err := list(WithoutGuard(t.Context(), keeper.ErrRefused)); !errors.As(err, &fault) || !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("one that failed before: %v", err)
	}
}
