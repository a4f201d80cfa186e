package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// consent returns nil if the operator agrees to what the plan does to running
// guests, by the flag yes or by typing it. A plan that disturbs no guest needs no
// consent. errNoConsent if there is nobody to ask, errDeclined for any other
// answer, and the context's cause if it ends first.
func consent(ctx context.Context, plan recover.Plan, yes, interactive bool, in *bufio.Reader, ask func()) error {
	disruptive := plan.Disruptive()
	if len(disruptive) == 0 || yes {
		return nil
	}
	if !interactive {
		return nobodyToAsk(disturbance(disruptive))
	}
	ask()
	return agreed(ctx, in)
}

// nobodyToAsk returns errNoConsent with what the command would do.
func nobodyToAsk(does string) error {
	return fmt.Errorf("%w: %s: add --yes, or run it on a terminal. Nothing was changed", errNoConsent, does)
}

// agreed waits for an answer. It returns nil for yes, errDeclined for any other
// answer, and the context's cause if it ends first.
func agreed(ctx context.Context, in *bufio.Reader) error {
	said, err := answer(ctx, in)
	if err == nil && said != "yes" {
		err = errDeclined
	}
	return err
}

// disturbance says what a plan does to which guests, the worst first.
func disturbance(plans []recover.InstancePlan) string {
	const (
		suspends = "it briefly suspends "
		disrupts = "it pauses, destroys or starts "
		reboots  = "it reboots "
		renames  = "it renames files of "
	)
	names := map[string][]string{}
	for _, p := range plans {
		does := disrupts
		switch p.Action {
		case recover.ActionHardReboot:
			does = reboots
		case recover.ActionLive:
			does = suspends
		case recover.ActionMoveBack:
			does = renames
		}
		names[does] = append(names[does], p.Domain)
	}
	const most = 10
	var parts []string
	for _, does := range []string{disrupts, reboots, suspends, renames} {
		who := names[does]
		if more := len(who) - most; more > 0 {
			who = append(who[:most:most], fmt.Sprintf("%d more", more))
		}
		if len(who) > 0 {
			parts = append(parts, does+strings.Join(who, ", "))
		}
	}
	return strings.Join(parts, "; ")
}
