package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover/leftover"
)

func TestWhatTheKeeperHoldsIsReleasedOnlyWithConsent(t *testing.T) {
	held := []leftover.Hold{{Last: true}}
	for _, c := range []struct {
		name, args, stdin string
		interactive       bool
		held              []leftover.Hold
		code              int
		call              string
	}{
		{"nobody to ask", "keeper release u1", "", false, held, 2, ""},
		{"--yes", "keeper release u1 --yes", "", false, held, 0, "release 1, last copies: false"},
		{"last copies", "keeper release --all --accept-loss last-copy", "yes\n", true, held, 0, "release 1, last copies: true"},
		{"no", "keeper release u1", "no\n", true, held, 1, ""},
		{"nothing held", "keeper release u1 --yes", "", false, nil, 2, ""},
		{"all and one", "keeper release u1 --all --yes", "", false, held, 2, ""},
		{"none named", "keeper release --yes", "", false, held, 2, ""},
		{"another loss", "keeper release u1 --yes --accept-loss nvram", "", false, held, 2, ""},
	} {
		f := &fake{held: c.held}
		o := do(t, f, call{args: c.args, stdin: c.stdin, interactive: c.interactive})
		released := slices.ContainsFunc(f.calls, func(c string) bool { return strings.HasPrefix(c, "release") })
		if o.code != c.code || released != (c.call != "") || released && !slices.Contains(f.calls, c.call) {
			t.Errorf("%s: exit code %d, want %d; %v\n%s", c.name, o.code, c.code, f.calls, o.err)
		}
	}
}
