package guard

import (
	"cmp"
	"context"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// Options are an operator's wishes for a guard.
type Options struct {
	// Interval is the time between two full scans; 0 is DefaultInterval.
	Interval time.Duration
	// Grace is how long a deleted file is held whose instance nobody knows any more, when
	// the guard works without Nova.
	Grace time.Duration
	// MinFree is the share of a file system, 0 to 1, below which deleted files go that no
	// instance needs and that are held for the length of an incident (verdict.Spare).
	MinFree float64
	// Lock locks an instance in Nova as soon as its files are deleted.
	Lock bool
	// SignIn connects to Nova; nil when the guard works without Nova. After an error, as
	// recover.ErrCloudUnavailable, the next scan tries again.
	SignIn func(ctx context.Context) (recover.Cloud, error)
}

// The defaults of Options.
const (
	DefaultInterval = 15 * time.Second
	DefaultGrace    = 24 * time.Hour
	DefaultMinFree  = 0.05
)

// interval is Interval with its default.
func (o Options) interval() time.Duration {
	return cmp.Or(max(o.Interval, 0), DefaultInterval)
}
