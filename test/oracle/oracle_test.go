package oracle

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// setting is a number of the environment: make oracle SEED= STEPS= SEQUENCES= sets them.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: it must be a number", name, text)
	}
	return n
}

func TestNoRandomSequenceMakesOsRescueSayWhatIsNotTrue(t *testing.T) {
	seed, steps := setting(t, "ORACLE_SEED", 1), setting(t, "ORACLE_STEPS", 6)
	sequences := setting(t, "ORACLE_SEQUENCES", 40)
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

// everything is true when all that os-rescue should get right is tried, and not only what
// it gets right by now.
func everything() bool { return os.Getenv("ORACLE_KINDS") == "all" }

// allowed says which kinds of step are drawn: all, those that ORACLE_KINDS lists, or those
// that os-rescue copes with by now.
func allowed() func(string) bool {
	if everything() {
		return func(string) bool { return true }
	}
	list := strings.Fields(os.Getenv("ORACLE_KINDS"))
	if len(list) > 0 {
		return func(name string) bool { return slices.Contains(list, name) }
	}
	return func(name string) bool { return !slices.Contains(notYet(), name) }
}

// notYet are the kinds of step that make os-rescue say what is not true: make oracle draws
// them, make test does not. When the list is empty it goes, and "open" in knownFaults too.
func notYet() []string {
	return []string{
		"mount-over", // the lab can't always unmount what a sequence has mounted
		"recreate",   // an off guest's disk that the guard holds, and a stranger at its path: intact
		"guard-stop", // of an off guest the keeper has the base and the path the disk: that counts as held by nobody yet
	}
}
