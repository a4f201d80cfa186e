package recover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestNoErrorOfGoReachesAnOperatorInItsOwnWords(t *testing.T) {
	for _, err := range []error{
		context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed, io.ErrUnexpectedEOF,
	} {
		for _, e := range []*recover.InstanceError{
			{Err: fmt.Errorf("look at its domain: %w", err)},
			{Err: errors.New("no room"), Safe: fmt.Sprintf("its QEMU alone holds it (%v)", err)},
		} {
			if got := e.Message(); strings.Contains(got, err.Error()) || !strings.Contains(got, " ") {
				t.Errorf("%v: %s", err, got)
			}
		}
	}
	if got := recover.InWords("no space left on device"); got != "no space left on device" {
		t.Error(got)
	}
}

func TestOnlyAnInterruptionAloneIsOne(t *testing.T) {
	other := errors.New("the image is corrupt")
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"the context's":           {context.Canceled, true},
		"wrapped":                 {fmt.Errorf("copy: %w", context.Canceled), true},
		"wrapped with a kind":     {fmt.Errorf("%w: %w", recover.ErrUnusable, context.Canceled), true},
		"twice":                   {errors.Join(context.Canceled, fmt.Errorf("thaw: %w", context.Canceled)), true},
		"beside another":          {errors.Join(other, context.Canceled), false},
		"another":                 {other, false},
		"the end of a time limit": {context.DeadlineExceeded, false},
		"none":                    {nil, false},
	} {
		if got := recover.IsInterruption(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
