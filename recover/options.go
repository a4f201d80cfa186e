package recover

import (
	"slices"
	"strings"
	"time"
)

// states returns the statuses of the instances that are meant.
func (o RebootOptions) states() []string {
	if len(o.States) == 0 {
		return []string{"ACTIVE"}
	}
	var states []string
	for _, s := range o.States {
		states = append(states, strings.ToUpper(s))
	}
	return states
}

// meant is true for an instance of one of the statuses, and for one that is being
// rebooted: that one is waited for.
func meant(s Server, states []string) bool {
	return slices.Contains(states, s.Status) || rebooting(s)
}

// DefaultMaxPause is LiveOptions.MaxPause where it is 0.
const DefaultMaxPause = 30 * time.Second
