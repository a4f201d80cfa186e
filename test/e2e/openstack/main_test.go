//go:build openstack

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/test/openstack"
)

// The bed, and os-rescue built with its failpoints, for every case.
var (
	bed    *openstack.Bed
	binary string
)

func TestMain(m *testing.M) {
	openstack.Enter(options())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func options() openstack.Options { return openstack.Options{Progress: os.Stderr} }

func run(m *testing.M) (code int, err error) {
	// What the caller is signed in to is not what os-rescue is to act on.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OS_") {
			if err := os.Unsetenv(name); err != nil {
				return 1, err
			}
		}
	}
	ctx := context.Background()
	if bed, err = openstack.Up(ctx, options()); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "os-rescue-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if binary, err = build(ctx, dir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// build builds os-rescue into a directory and returns its path.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "os-rescue")
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "failpoint", "-o", path, "github.com/os-rescue/os-rescue/cmd/os-rescue")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("e2e: build os-rescue: %w\n%s", err, out)
	}
	return path, nil
}
