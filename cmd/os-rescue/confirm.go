package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
)

// consent returns nil when the operator agrees to what the plan does to running
// guests: with yes, or by typing it when asked. A plan that disturbs no guest
// needs none. errNoConsent when there is nobody to ask, errDeclined for any
// other answer, and the context's cause when it ends first.
func consent(ctx context.Context, plan recover.Plan, yes, interactive bool, in *bufio.Reader, ask func()) error {
	disruptive := plan.Disruptive()
	if len(disruptive) == 0 || yes {
		return nil
	}
	if !interactive {
		return fmt.Errorf("%w: %s: add --yes, or run it on a terminal. Nothing was changed", errNoConsent, disturbance(disruptive))
	}
	ask()
	return agreed(ctx, in)
}

// agreed waits for an answer. It returns nil when that is yes, errDeclined for
// any other, and the context's cause when it ends first.
func agreed(ctx context.Context, in *bufio.Reader) error {
	answer := make(chan string, 1)
	go func() { // a read can't be interrupted; the process ends soon in any case
		line, _ := in.ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case a := <-answer:
		if a != "yes" {
			return errDeclined
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nothing was changed: %w", context.Cause(ctx))
	}
}

// disturbance names the guests that a plan pauses, destroys, starts or reboots.
func disturbance(plans []recover.InstancePlan) string {
	what := ""
	var names []string
	for _, p := range plans {
		does := "it pauses, destroys or starts "
		switch p.Action {
		case recover.ActionHardReboot:
			does = "it reboots "
		case recover.ActionLive:
			does = "it suspends, for a moment, "
		}
		if what != "" && what != does {
			does = "it pauses, destroys or starts "
		}
		what = does
		names = append(names, console.Clean(p.Domain))
	}
	const most = 10
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return what + strings.Join(names, ", ")
}
