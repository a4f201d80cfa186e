package openstack

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// PatienceVariable is the environment variable that stretches every limit on a slow
// or busy machine: a factor, 1 when it is not set.
const PatienceVariable = "LAB_PATIENCE"

// awaitLimit is how long the bed waits for any one thing.
const awaitLimit = 4 * time.Minute

// downLimit is how long all services together may take to end.
const downLimit = 2 * time.Minute

// Patience returns how long to wait for what an idle machine does within the limit.
func Patience(limit time.Duration) time.Duration {
	factor, err := patienceFactor()
	if err != nil {
		factor = 1 // Up refuses it
	}
	return time.Duration(float64(limit) * factor)
}

func patienceFactor() (float64, error) {
	text := os.Getenv(PatienceVariable)
	if text == "" {
		return 1, nil
	}
	factor, err := strconv.ParseFloat(text, 64)
	if err != nil || !(factor > 0 && factor <= 1000) {
		return 0, fmt.Errorf("openstack: %s is %q: want a factor like 1 or 2.5", PatienceVariable, text)
	}
	return factor, nil
}
