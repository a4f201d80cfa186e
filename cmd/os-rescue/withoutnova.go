package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
)

// withoutNova is what a command does when Nova does not answer.
type withoutNova struct {
	a        *app
	offline  bool // Nova is not asked anyway
	yes      bool // nobody is to be asked
	possible bool // the command can do without
}

// attempt makes something ready that may need Nova. When Nova does not answer
// and there is somebody to ask who agrees, it is made ready once more without.
// Other errors of the API get the next step said.
func attempt[T any](ctx context.Context, w withoutNova, prepare func(offline bool) (T, error)) (T, error) {
	ready, err := prepare(w.offline)
	if err == nil || w.offline {
		return ready, err
	}
	away := errors.Is(err, recover.ErrCloudUnavailable)
	switch {
	case !away && !errors.Is(err, recover.ErrCredentials) && !errors.Is(err, recover.ErrForbidden) && !errors.Is(err, nova.ErrTooOld):
		return ready, err
	case !w.possible:
		return ready, fmt.Errorf("%w. Nothing was changed. Next: run it again when that is cured", err)
	case !away || w.yes || !w.a.interactive():
		return ready, fmt.Errorf("%w. Nothing was changed. Next: cure that, or go on without Nova: "+
			"add --offline (the domains are started by libvirt, and nothing is locked)", err)
	}
	w.a.askOffline(err)
	if no := agreed(ctx, w.a.stdin); no != nil {
		return ready, no
	}
	return prepare(true)
}

// askOffline asks whether to go on without Nova.
func (a *app) askOffline(err error) {
	_, _ = fmt.Fprintf(a.stderr, `Nova does not answer: %s

It can be done without Nova. Then
  - the instances are chosen by what Nova wrote into libvirt when it last started them;
  - their domains are started by libvirt, and watched, not hard rebooted by Nova;
  - nothing is locked in Nova: make sure that nobody reboots, stops or moves these instances meanwhile.
Nothing was changed so far.

Type yes to go on without Nova: `, console.Clean(err.Error()))
	a.stderr.Flush(time.Second)
}
