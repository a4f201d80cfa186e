package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// turns returns a contender that reports these seconds, turn by turn, and a peak of
// memory.
func turns(name string, seconds ...float64) contender {
	n := 0
	return contender{name, func(_ context.Context, b *bench) error {
		b.Took(time.Duration(seconds[n] * float64(time.Second)))
		b.Value("peak MiB", 10*seconds[n])
		n++
		return nil
	}}
}

func TestAFigureHasMediansAndRatiosToOsRescue(t *testing.T) {
	before := 0
	f := figure{
		Name:   "copy",
		Goal:   timesFaster(2),
		before: func(context.Context, *bench) error { before++; return nil },
		ours:   turns("os-rescue", 1, 9, 2),
		peers:  []contender{turns("cp", 4, 4, 5), turns("rsync", 6, 1, 1)},
	}
	r, err := f.measure(t.Context(), &bench{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	if before != 9 {
		t.Errorf("before ran %d times, not before each of 9 turns", before)
	}
	for n, want := range []measured{
		{Name: "os-rescue", Median: 2, Ratio: 1},
		{Name: "cp", Median: 4, Ratio: 2},
		{Name: "rsync", Median: 1, Ratio: 0.5},
	} {
		got := r.Contenders[n]
		if got.Name != want.Name || got.Median != want.Median || got.Ratio != want.Ratio ||
			len(got.Seconds) != 3 || len(got.Values["peak MiB"]) != 3 {
			t.Errorf("contender %d is %+v, not %+v with three turns", n, got, want)
		}
	}
	if !r.Met {
		t.Error("twice as fast as cp, and the goal is not met")
	}
	for _, part := range []string{"rsync", "0.50", "peak MiB 20", "≥ 2 × the first peer: met"} {
		if table := render([]result{r}); !strings.Contains(table, part) {
			t.Errorf("the table does not say %q:\n%s", part, table)
		}
	}
}

func TestATurnThatFailsFailsTheFigureAndCleansUp(t *testing.T) {
	broken := errors.New("broken")
	cleaned := false
	f := figure{
		setup: func(context.Context, *bench) (func(), error) { return func() { cleaned = true }, nil },
		ours:  turns("os-rescue", 1),
		peers: []contender{{"cp", func(context.Context, *bench) error { return broken }}},
	}
	if _, err := f.measure(t.Context(), &bench{}, 1); !errors.Is(err, broken) || !strings.Contains(err.Error(), "cp") {
		t.Errorf("the error is %v", err)
	}
	if !cleaned {
		t.Error("what setup made was not undone")
	}
}

func TestGoals(t *testing.T) {
	r := result{Contenders: []measured{
		{Median: 0.2, Ratio: 1, Values: map[string][]float64{"peak MiB": {40, 130}}},
		{Ratio: 9.9},
		{Ratio: 1},
	}}
	for _, c := range []struct {
		goal goal
		met  bool
	}{
		{timesFaster(9.9), true},
		{timesFaster(10), false},
		{neverSlower(), true},
		{within(200 * time.Millisecond), true},
		{within(199 * time.Millisecond), false},
		{atMost("peak MiB", 130), true},
		{atMost("peak MiB", 129), false},
		{atMost("calls", 1), false}, // never measured
		{all(neverSlower(), timesFaster(2)), true},
		{all(neverSlower(), timesFaster(10)), false},
	} {
		if got := c.goal.met(r); got != c.met {
			t.Errorf("%s: met %v, not %v", c.goal.Text, got, c.met)
		}
	}
	r.Contenders[2].Ratio = 0.99
	if neverSlower().met(r) {
		t.Error("never slower, though one is faster")
	}
}

func TestDurationsHaveThreeDigits(t *testing.T) {
	for seconds, want := range map[float64]string{0.00025: "0.25 ms", 0.0123456: "12.3 ms", 1.2345: "1.23 s", 123.4: "123 s"} {
		if got := duration(seconds); got != want {
			t.Errorf("%v s is %q, not %q", seconds, got, want)
		}
	}
}

func TestAFigureThatIsMeasuredApartIsRatedLikeAnyOther(t *testing.T) {
	f := figure{Name: "fleet", Goal: timesFaster(10), apart: func(context.Context, *bench) ([]measured, error) {
		return []measured{{Name: "os-rescue", Seconds: []float64{2}}, {Name: "openstack", Seconds: []float64{30}}}, nil
	}}
	r, err := f.measure(t.Context(), &bench{}, 3)
	if err != nil || !r.Met || r.Contenders[1].Ratio != 15 {
		t.Errorf("%+v, error %v; want a ratio of 15 and the goal met", r, err)
	}
}
