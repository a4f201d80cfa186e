package check

import "testing"

func TestLevelsAreTheExitCodesOfPlugins(t *testing.T) {
	for level, code := range map[Level]int{OK: 0, Warning: 1, Critical: 2, Unknown: 3, "": 3, "what": 3} {
		if got := level.Code(); got != code {
			t.Errorf("%s is %d", level, got)
		}
	}
}
