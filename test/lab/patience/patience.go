// Package patience says how long tests wait for what comes: minutes for what takes
// seconds on a machine at rest, and more on a busy one. It is not for limits that
// os-rescue promises to keep.
package patience

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// Variable is the environment variable by which all limits are multiplied: LAB_PATIENCE=4
// on a machine that is busy with other things.
const Variable = "LAB_PATIENCE"

// T is what Wait needs of a *testing.T or *testing.B.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Limit is how long to wait for anything.
func Limit() time.Duration { return Of(2 * time.Minute) }

// Of is how long to wait for what may take d on a machine that is a little busy. It
// panics when Variable is no positive number.
func Of(d time.Duration) time.Duration {
	text := os.Getenv(Variable)
	if text == "" {
		return d
	}
	factor, err := strconv.ParseFloat(text, 64)
	if err != nil || !(factor > 0 && factor <= 1000) {
		panic(fmt.Sprintf("%s=%s: it must be a positive number of at most 1000", Variable, text))
	}
	return time.Duration(float64(d) * factor)
}

// Wait waits until ok, and fails the test when that takes more than Limit.
func Wait(t T, what string, ok func() bool) {
	t.Helper()
	err := Retry(func() error {
		if ok() {
			return nil
		}
		return fmt.Errorf("%s: not within %s", what, Limit())
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// Retry calls f until it succeeds or Limit is over, and returns its last error.
func Retry(f func() error) error { return RetryFor(Limit(), f) }

// RetryFor is Retry with another limit, one of Of.
func RetryFor(limit time.Duration, f func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
