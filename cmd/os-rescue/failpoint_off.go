//go:build !failpoint

package main

import "context"

// failpoints returns nil: only a build for tests can be made to fail.
func failpoints(context.Context, map[string]string) (func(point string), error) { return nil, nil }

// runDir returns the directory unchanged.
func runDir(_ map[string]string, dir string) string { return dir }

// undoCommand returns the command unchanged.
func undoCommand(_ map[string]string, command []string) []string { return command }
