package bare

import (
	"os"
	"strconv"
	"testing"
)

// Setting is a number of the environment, which make sets from its own variables; otherwise
// when it has none. The test fails if it is no number.
func Setting(t testing.TB, name string, otherwise int) int {
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
