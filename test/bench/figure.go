package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// figure is one measurement: os-rescue's way beside those of its peers.
type figure struct {
	Name string
	Goal goal
	// setup prepares the figure for all contenders; cleanup undoes that. May be nil.
	setup func(ctx context.Context, b *bench) (cleanup func(), err error)
	// before runs unmeasured before every turn of every contender. May be nil.
	before func(ctx context.Context, b *bench) error
	// once: a single turn each is enough, because each does much by itself.
	once bool

	ours  contender
	peers []contender

	// apart, if not nil, measures all contenders, os-rescue first, in another process,
	// in place of all the above.
	apart func(ctx context.Context, b *bench) ([]measured, error)
}

// contender does the figure's work in one way. The turn's time is that of do, unless do
// reports another with bench.Took.
type contender struct {
	Name string
	do   func(ctx context.Context, b *bench) error
}

// bench is what the figures of one run share.
type bench struct {
	dir   string // for scratch files
	bytes int64  // size of the source of copies
	quick bool   // small sizes: to see that all works

	source *os.File // the deleted file, still open
	mount  string   // of the file system under test

	took   time.Duration // of this turn, when it was not measured from outside
	values map[string]float64
}

// Took reports the time of this turn's work, if that is not the time of do.
func (b *bench) Took(d time.Duration) { b.took = d }

// Value notes another number of this turn, like a peak of memory.
func (b *bench) Value(name string, number float64) { b.values[name] = number }

// measured is the result of one contender.
type measured struct {
	Name    string    `json:"name"`
	Seconds []float64 `json:"seconds"` // of each turn
	Median  float64   `json:"median_seconds"`
	// Ratio is the median divided by os-rescue's: above 1, os-rescue is faster.
	Ratio  float64              `json:"ratio"`
	Values map[string][]float64 `json:"values,omitempty"`
}

// result is the result of a figure.
type result struct {
	Name string `json:"name"`
	Goal string `json:"goal,omitempty"`
	Met  bool   `json:"goal_met"`
	// Contenders has os-rescue first.
	Contenders []measured `json:"contenders"`
}

// measure lets the contenders take turns.
func (f figure) measure(ctx context.Context, b *bench, runs int) (r result, err error) {
	if f.apart != nil {
		r = result{Name: f.Name, Goal: f.Goal.Text}
		r.Contenders, err = f.apart(ctx, b)
	} else {
		r, err = f.turns(ctx, b, runs)
	}
	if err != nil {
		return result{}, err
	}
	r.rate()
	r.Met = f.Goal.met != nil && f.Goal.met(r)
	return r, nil
}

func (f figure) turns(ctx context.Context, b *bench, runs int) (result, error) {
	if f.setup != nil {
		cleanup, err := f.setup(ctx, b)
		if err != nil {
			return result{}, err
		}
		defer cleanup()
	}
	if f.once {
		runs = 1
	}
	contenders := append([]contender{f.ours}, f.peers...)
	r := result{Name: f.Name, Goal: f.Goal.Text, Contenders: make([]measured, len(contenders))}
	for range runs {
		for n, c := range contenders {
			if f.before != nil {
				if err := f.before(ctx, b); err != nil {
					return result{}, err
				}
			}
			if err := r.Contenders[n].turn(ctx, c, b); err != nil {
				return result{}, fmt.Errorf("%s: %w", c.Name, err)
			}
		}
	}
	return r, nil
}

// turn is one turn of one contender.
func (m *measured) turn(ctx context.Context, c contender, b *bench) error {
	m.Name = c.Name
	b.took, b.values = 0, map[string]float64{}
	start := time.Now()
	if err := c.do(ctx, b); err != nil {
		return err
	}
	took := time.Since(start)
	if b.took > 0 {
		took = b.took
	}
	m.Seconds = append(m.Seconds, took.Seconds())
	for name, number := range b.values {
		if m.Values == nil {
			m.Values = map[string][]float64{}
		}
		m.Values[name] = append(m.Values[name], number)
	}
	return nil
}

// rate fills in the medians and ratios.
func (r *result) rate() {
	for n := range r.Contenders {
		m := &r.Contenders[n]
		m.Median = median(m.Seconds)
		m.Ratio = m.Median / r.Contenders[0].Median
	}
}

func median(numbers []float64) float64 {
	s := slices.Sorted(slices.Values(numbers))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
