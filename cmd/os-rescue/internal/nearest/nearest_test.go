package nearest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheClosestWordComesFirst(t *testing.T) {
	words := []string{"host", "state_dir", "libvirt.uri", "log.level", "log.format"}
	for given, want := range map[string]string{
		"hosts":        "host",
		"statedir":     "state_dir",
		"libvirt.url":  "libvirt.uri",
		"LOG.LEVEL":    "log.level",
		"log.formatte": "log.format",
	} {
		if got := Sort(given, words)[0]; got != want {
			t.Errorf("closest to %q is %q, want %q", given, got, want)
		}
	}
	if words[0] != "host" || words[4] != "log.format" {
		t.Error("the words given were reordered")
	}
}

func TestEquallyCloseWordsAreInAlphabeticalOrder(t *testing.T) {
	got := Sort("x", []string{"c", "a", "b"})
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"ab", "ba", 2},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
