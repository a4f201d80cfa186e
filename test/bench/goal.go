package main

import (
	"fmt"
	"time"
)

// goal is os-rescue's goal in a figure. The zero value is none.
type goal struct {
	Text string
	met  func(result) bool
}

// timesFaster asks for at most the N-th part of the first peer's time.
func timesFaster(n float64) goal {
	return goal{
		Text: fmt.Sprintf("≥ %.3g × the first peer", n),
		met:  func(r result) bool { return r.Contenders[1].Ratio >= n },
	}
}

// neverSlower asks that no peer is faster.
func neverSlower() goal {
	return goal{
		Text: "no peer faster",
		met: func(r result) bool {
			for _, m := range r.Contenders[1:] {
				if m.Ratio < 1 {
					return false
				}
			}
			return true
		},
	}
}

// within asks for at most this time, regardless of the peers.
func within(limit time.Duration) goal {
	return goal{
		Text: "≤ " + limit.String(),
		met:  func(r result) bool { return r.Contenders[0].Median <= limit.Seconds() },
	}
}

// atMost asks that none of os-rescue's numbers of that name is above limit.
func atMost(name string, limit float64) goal {
	return goal{
		Text: fmt.Sprintf("%s ≤ %g", name, limit),
		met: func(r result) bool {
			numbers := r.Contenders[0].Values[name]
			for _, n := range numbers {
				if n > limit {
					return false
				}
			}
			return len(numbers) > 0
		},
	}
}

// all asks for each of several goals.
func all(goals ...goal) goal {
	both := goal{met: func(r result) bool {
		for _, g := range goals {
			if !g.met(r) {
				return false
			}
		}
		return true
	}}
	for n, g := range goals {
		if n > 0 {
			both.Text += ", "
		}
		both.Text += g.Text
	}
	return both
}
