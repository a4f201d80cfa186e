package recover

import "testing"

func TestLevelsAreTheExitCodesOfPlugins(t *testing.T) {
	for level, code := range map[CheckLevel]int{CheckOK: 0, CheckWarning: 1, CheckCritical: 2, CheckUnknown: 3, "": 3, "what": 3} {
		if got := level.Code(); got != code {
			t.Errorf("%s is %d", level, got)
		}
	}
}
