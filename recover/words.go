package recover

import (
	"context"
	"errors"
	"strings"
)

// StoppedBy says what has ended the context of a run: the cause's own words ("stopped by
// SIGINT"), or those of this function where the context has none.
func StoppedBy(ctx context.Context) string {
	cause := context.Cause(ctx)
	if cause == nil || cause == context.Canceled || cause == context.DeadlineExceeded { //nolint:errorlint // a cause may match them
		return "the run was stopped"
	}
	return cause.Error()
}

// IsInterruption is true when err says only that its context was cancelled. An error that
// joins another one to that is none.
func IsInterruption(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if all := joined.Unwrap(); errors.Join(all...).Error() == err.Error() {
			for _, one := range all {
				if !IsInterruption(one) {
					return false
				}
			}
			return true
		}
	}
	return errors.Is(err, context.Canceled)
}

// InWords returns text, which is an error's, without the terms of Go's own errors (packages
// context, os, os/exec, net and io): an operator does not know them.
func InWords(text string) string {
	return strings.NewReplacer(
		"context canceled", "interrupted",
		"context deadline exceeded", "no answer in time",
		"i/o timeout", "no answer in time",
		"signal: killed", "its process was killed",
		"broken pipe", "the other side has closed the connection",
		"connection reset by peer", "the other side has closed the connection",
		"use of closed network connection", "the connection is closed",
		"unexpected EOF", "it ends too early",
	).Replace(text)
}
