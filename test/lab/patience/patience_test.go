package patience

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestEveryLimitGrowsWithThePatience(t *testing.T) {
	for value, want := range map[string]time.Duration{"": time.Minute, "1": time.Minute, "4": 4 * time.Minute, "0.5": 30 * time.Second} {
		t.Setenv(Variable, value)
		if got := Of(time.Minute); got != want || Limit() != 2*want {
			t.Errorf("with %q a minute is %s and the limit %s, want %s", value, got, Limit(), want)
		}
	}
}

func TestAPatienceThatIsNoNumberIsNotOverlooked(t *testing.T) {
	for _, value := range []string{"much", "0", "-1", "NaN", "1e9"} {
		t.Setenv(Variable, value)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s=%s is taken for %s", Variable, value, Of(time.Second))
				}
			}()
			Of(time.Second)
		}()
	}
}

// failing is a test that can fail without ending this one.
type failing struct{ said string }

func (f *failing) Helper()                           {}
func (f *failing) Fatalf(format string, args ...any) { f.said = fmt.Sprintf(format, args...) }

func TestWaitEndsWithWhatComesOrWithTheLimit(t *testing.T) {
	t.Setenv(Variable, "0.001") // 120 ms
	var f failing
	calls := 0
	if Wait(&f, "the third call", func() bool { calls++; return calls == 3 }); f.said != "" || calls != 3 {
		t.Errorf("after %d calls it says %q", calls, f.said)
	}
	if Wait(&f, "nothing", func() bool { return false }); f.said != "nothing: not within 120ms" {
		t.Errorf("it says %q", f.said)
	}
	last := errors.New("the last error")
	if err := Retry(func() error { return last }); !errors.Is(err, last) {
		t.Errorf("error %v", err)
	}
}
