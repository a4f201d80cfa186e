package recovertest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// The environment of a test binary that is to be a keeper: Host.Settings has it in
// KeeperCommand.
const (
	roleVariable = "RECOVER_TEST"
	roleKeeper   = "keeper"
	dirVariable  = "RECOVER_DIR"
)

// Main runs a package's tests and exits; use it as the body of TestMain. The binary
// can be a keeper too, for a Host's engine to start. It must run as root.
func Main(m *testing.M) {
	if os.Getenv(roleVariable) == roleKeeper {
		os.Exit(beKeeper())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests look into other processes, run keepers and give files to other users: they must run as root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func beKeeper() int {
	// It must not outlive tests that were killed.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := keeper.Serve(ctx, keeper.Options{Dir: os.Getenv(dirVariable), Idle: 2 * time.Second}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Must fails the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
