package rescue_test

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// The test binary can be a keeper.
func TestMain(m *testing.M) { recovertest.Main(m) }
