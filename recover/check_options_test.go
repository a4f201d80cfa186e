package recover

import (
	"errors"
	"testing"
)

func TestAThresholdThatCanNotBeMetIsBadUsage(t *testing.T) {
	for _, o := range []CheckOptions{
		{Warning: 2},
		{Warning: 3, Critical: 2},
		{Critical: -1},
		{WarningHeld: 2, CriticalHeld: 1},
		{WarningHeld: -1},
		{MaxAge: -1},
	} {
		if _, err := Check(t.Context(), CheckSources{}, o); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
