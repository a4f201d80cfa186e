package check

import (
	"fmt"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// Options are the thresholds of a check.
type Options struct {
	// Warning and Critical are how many instances with lost files make a WARNING and a
	// CRITICAL; 0 is 1.
	Warning, Critical int
	// WarningHeld and CriticalHeld are bytes on disk: deleted files that take more make a
	// WARNING or a CRITICAL. 0 is no limit.
	WarningHeld, CriticalHeld int64
	// MaxAge is how old the guard's last full scan may be; 0 is DefaultMaxAge.
	MaxAge time.Duration
	// RequireGuard makes it a WARNING that no guard runs.
	RequireGuard bool
}

// DefaultMaxAge is the default of Options.MaxAge.
const DefaultMaxAge = 5 * time.Minute

// complete fills in the defaults. ErrUsage when the thresholds contradict each other.
func (o *Options) complete() error {
	if o.Warning < 0 || o.Critical < 0 || o.WarningHeld < 0 || o.CriticalHeld < 0 || o.MaxAge < 0 {
		return fmt.Errorf("%w: a threshold of a check must not be negative", recover.ErrUsage)
	}
	o.Critical = max(o.Critical, 1)
	o.Warning = max(o.Warning, 1)
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	switch {
	case o.Warning > o.Critical:
		return fmt.Errorf("%w: the warning at %d instances would come after the critical at %d", recover.ErrUsage, o.Warning, o.Critical)
	case o.CriticalHeld > 0 && o.WarningHeld > o.CriticalHeld:
		return fmt.Errorf("%w: the warning at %d held bytes would come after the critical at %d", recover.ErrUsage, o.WarningHeld, o.CriticalHeld)
	}
	return nil
}
