//go:build !failpoint

package main

import "context"

// failpoints returns nil: only a build for tests can be made to fail.
func failpoints(context.Context, map[string]string) (func(point string), error) { return nil, nil }

// undoCommand returns the command unchanged.
func undoCommand(_ map[string]string, command []string) []string { return command }
