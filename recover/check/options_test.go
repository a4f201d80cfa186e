package check

import (
	"errors"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestAThresholdThatCanNotBeMetIsBadUsage(t *testing.T) {
	for _, o := range []Options{
		{Warning: 2},
		{Warning: 3, Critical: 2},
		{Critical: -1},
		{WarningHeld: 2, CriticalHeld: 1},
		{WarningHeld: -1},
		{MaxAge: -1},
	} {
		if _, err := Make(t.Context(), Sources{}, o); !errors.Is(err, recover.ErrUsage) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
