package oracle

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func TestNoRandomSequenceMakesOsRescueSayWhatIsNotTrue(t *testing.T) {
	seed, steps := bare.Setting(t, "ORACLE_SEED", 1), bare.Setting(t, "ORACLE_STEPS", 6)
	sequences := bare.Setting(t, "ORACLE_SEQUENCES", 40)
	h := newHost(t)
	began := time.Now()
	seen, counts := map[string]int{}, map[recover.Verdict]int{}
	for n := range sequences {
		c := newChance(uint64(seed+n), allowed())
		layouts := c.layouts()
		o, err := h.play(t.Context(), layouts, steps, func() (step, bool) { return c.step(len(layouts)), true })
		if err != nil {
			t.Fatalf("sequence %d: %v\n%s", seed+n, err, o)
		}
		for verdict, count := range o.counts {
			counts[verdict] += count
		}
		if testing.Verbose() {
			fmt.Printf("sequence %d after %.0f s\n%s", seed+n, time.Since(began).Seconds(), o)
		}
		if o.fault == nil {
			continue
		}
		if seen[o.fault.rule]++; seen[o.fault.rule] > 1 {
			t.Errorf("sequence %d: again: %s", seed+n, o.fault.rule)
			continue
		}
		t.Errorf("sequence %d:\n%s%s", seed+n, o, shrunk(t, h, o))
	}
	if all := total(counts); counts[recover.VerdictUnknown] > all/50 {
		t.Errorf("%d of %d verdicts are %q", counts[recover.VerdictUnknown], all, recover.VerdictUnknown)
	}
	t.Logf("%d sequences in %.0f s; verdicts: %v", sequences, time.Since(began).Seconds(), counts)
}

func total(counts map[recover.Verdict]int) int {
	n := 0
	for _, count := range counts {
		n += count
	}
	return n
}

// shrunk returns the shortest form of a sequence that fails.
func shrunk(t *testing.T, h *host, o outcome) string {
	t.Helper()
	best := o
	small := shrink(o.script, func(s script) bool {
		got, err := replay(t, h, s)
		if err == nil && got.fault != nil && got.fault.rule == o.fault.rule {
			best = got
			return true
		}
		return false
	}, 30)
	return fmt.Sprintf("  shrunk:\n%s    ORACLE_SCRIPT='%s'\n", best, small)
}

// replay plays a script.
func replay(t *testing.T, h *host, s script) (outcome, error) {
	t.Helper()
	n := -1
	return h.play(t.Context(), s.Layouts, len(s.Steps), func() (step, bool) {
		if n++; n >= len(s.Steps) {
			return step{}, false
		}
		return s.Steps[n], true
	})
}

// allowed says which kinds of step are drawn: those that ORACLE_KINDS lists, else all.
func allowed() func(string) bool {
	list := strings.Fields(os.Getenv("ORACLE_KINDS"))
	return func(name string) bool { return len(list) == 0 || slices.Contains(list, name) }
}
