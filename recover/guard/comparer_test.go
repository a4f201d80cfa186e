package guard

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// Nova's image cache touches what a run has put back: whether that is the lost file's content still, only
// reading both says.
func TestACopyThatWasTouchedIsComparedInTheBackground(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   bool
	}{
		"the same bytes": {func(b []byte) []byte { return b }, true},
		"other bytes":    {func(b []byte) []byte { return append(b, 'x') }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newIncidentBed(t)
			hold := b.holds.deleted()[0]
			content, err := io.ReadAll(io.NewSectionReader(hold.file, 0, 1<<20))
			recovertest.Must(t, err)
			recovertest.Must(t, os.WriteFile(hold.Path, c.change(content), 0o600))
			at, err := identity.At(unix.AT_FDCWD, hold.Path, 0)
			recovertest.Must(t, err)
			root, err := beneath.OpenRoot("/")
			recovertest.Must(t, err)
			defer root.Close()
			known := make(chan struct{}, 1)
			copies := newComparer(b.holds, root, func() { known <- struct{}{} })
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); copies.run(ctx) }()
			defer func() { cancel(); <-ended }()

			if copies.equal(hold, at) {
				t.Error("it is equal before anybody has looked")
			}
			<-known
			if got := copies.equal(hold, at); got != c.want {
				t.Errorf("equal: %t", got)
			}
			recovertest.Must(t, os.Chtimes(hold.Path, time.Now(), time.Now().Add(time.Hour)))
			if at, err = identity.At(unix.AT_FDCWD, hold.Path, 0); err != nil || copies.equal(hold, at) {
				t.Errorf("it is equal after it was written again (%v)", err)
			}
		})
	}
}
