package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// withoutNova says what a command does if Nova does not answer.
type withoutNova struct {
	a        *app
	offline  bool // Nova is not asked in the first place
	yes      bool // the operator is not asked
	possible bool // the command can work without Nova
}

// attempt calls prepare, which may need Nova. If Nova does not answer and the
// operator agrees to go on without it, attempt calls prepare again, offline. Errors
// of the API are returned with the next step to take.
func attempt[T any](ctx context.Context, w withoutNova, prepare func(offline bool) (T, error)) (T, error) {
	ready, err := prepare(w.offline)
	if err == nil || w.offline {
		return ready, err
	}
	strange := errors.Is(err, recover.ErrCloudAnswer)
	away := errors.Is(err, recover.ErrCloudUnavailable) && !strange
	switch {
	case !away && !strange && !errors.Is(err, recover.ErrCredentials) && !errors.Is(err, recover.ErrForbidden) &&
		!errors.Is(err, nova.ErrTooOld):
		return ready, err
	case !w.possible:
		return ready, fmt.Errorf("%w. Nothing was changed. Next: fix that, then run it again", err)
	case !away || w.yes || !w.a.interactive():
		return ready, fmt.Errorf("%w. Nothing was changed. Next: fix that, or add --offline to go on without Nova "+
			"(libvirt starts the domains, and nothing is locked)", err)
	}
	w.ask(err)
	if no := agreed(ctx, w.a.stdin); no != nil {
		return ready, no
	}
	return prepare(true)
}

// ask asks whether to go on without Nova.
func (w withoutNova) ask(err error) {
	w.a.prompt(`Nova does not answer: %s

os-rescue can go on without Nova. Then
  - the instances are selected by the metadata that Nova wrote into libvirt when it last started them;
  - libvirt starts their domains and os-rescue watches them, instead of a hard reboot through Nova;
  - nothing is locked in Nova: make sure that nobody reboots, stops or moves these instances meanwhile.
Nothing has been changed so far.

Type yes to go on without Nova: `, printable.OneLine(err.Error()))
}
