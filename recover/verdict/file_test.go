package verdict

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// every calls f for each combination of facts.
func every(f func(Facts)) {
	for _, kind := range []Kind{Essential, Log, Made} {
		for _, active := range []bool{true, false} {
			for _, holder := range []Holder{Nobody, Own, Pin, Ambiguous} {
				for _, at := range []Place{Nothing, Itself, Copy, Stranger, NoFile, NoDisk, NoImage, Split, Overwritten} {
					for _, named := range []Name{NoName, Elsewhere, OtherLink, Hidden} {
						for _, reachable := range []bool{true, false} {
							if holder == Nobody && (at == Itself || at == Copy) {
								continue // there is no inode to compare with
							}
							if at == NoImage && active || (at == NoImage || at == Split) && kind != Essential {
								continue // nobody looks
							}
							if at == Overwritten && (!active || kind != Essential || holder != Own) {
								continue // the same
							}
							for _, instead := range []bool{true, false} {
								f(Facts{kind, active, holder, at, named, reachable, instead, false})
							}
							if kind == Essential {
								f(Facts{kind, active, holder, at, named, reachable, false, true})
							}
						}
					}
				}
			}
		}
	}
}

func TestEachLineOfTheTableIsReached(t *testing.T) {
	reached := map[int]bool{}
	every(func(f Facts) {
		for n, r := range table() {
			if r.fits(f) {
				reached[n] = true
				return
			}
		}
		t.Errorf("no line for %+v", f)
	})
	for n, r := range table() {
		if !reached[n] {
			t.Errorf("line %d is never reached: %+v", n, r)
		}
	}
}

// What law 0 says of every file, whatever the facts.
func TestNoComfortableWordIsSaidOfAnOpenFileThatTheNextStartWouldNotOpen(t *testing.T) {
	every(func(f Facts) {
		got := File(f)
		held := f.Holder == Own || f.Holder == Pin
		switch {
		case held && f.At != Itself && got.State == recover.FilePresent:
			t.Errorf("%+v is present", f)
		case held && got.State == recover.FileMissing:
			t.Errorf("%+v is missing, though it is open", f)
		case held && f.At != Itself && !got.Proven && got.Remedy == "":
			t.Errorf("%+v needs no remedy: %+v", f, got)
		case (f.At == NoImage || f.At == Split || f.At == Overwritten) && (got.State == recover.FilePresent || got.Proven || got.Remedy == ""):
			t.Errorf("%+v is %+v, and no start can use it", f, got)
		case f.Holder == Ambiguous && got.State != recover.FileUnknown && f.At != Itself:
			t.Errorf("%+v is %+v, and nobody can know that", f, got)
		case got.Proven && f.At != Copy:
			t.Errorf("%+v is proven", f)
		case f.Active && f.Kind == Essential && f.Holder == Nobody && f.At == Stranger && got.State != recover.FileUnknown:
			t.Errorf("%+v: its QEMU does not have it open, and it is %+v", f, got)
		case held && f.Named == NoName && got.State == recover.FileDisplaced:
			t.Errorf("%+v is displaced, and nothing is left to bring back", f)
		case (f.At == NoFile || f.At == NoDisk) && got.State == recover.FilePresent:
			t.Errorf("%+v: a directory is taken for a disk", f)
		case f.Instead && f.Kind == Essential && got.State == recover.FileMissing:
			t.Errorf("%+v is missing, though another file may be it", f)
		case !f.Reachable && (got.Remedy == recover.RemedyCopy || got.Remedy == recover.RemedyLinkBack || got.Remedy == recover.RemedyMoveBack):
			t.Errorf("%+v would be published where it does not belong: %+v", f, got)
		}
	})
}

func TestWhatTheFactsAboutAFileMean(t *testing.T) {
	open := Facts{Kind: Essential, Active: true, Holder: Own, Reachable: true}
	with := func(change func(*Facts)) Facts {
		f := open
		change(&f)
		return f
	}
	for name, c := range map[string]struct {
		facts  Facts
		state  recover.FileState
		remedy recover.Remedy
	}{
		"there":    {with(func(f *Facts) { f.At = Itself }), recover.FilePresent, ""},
		"deleted":  {with(func(f *Facts) { f.At, f.Named = Nothing, NoName }), recover.FileDeleted, recover.RemedyCopy},
		"replaced": {with(func(f *Facts) { f.At, f.Named = Stranger, NoName }), recover.FileReplaced, recover.RemedyReplace},
		"a directory in its place": {
			with(func(f *Facts) { f.At, f.Named = NoFile, NoName }), recover.FileReplaced, recover.RemedyReplace,
		},
		"put back": {with(func(f *Facts) { f.At, f.Named = Copy, NoName }), recover.FileReplaced, ""},
		"renamed":  {with(func(f *Facts) { f.At, f.Named = Nothing, Elsewhere }), recover.FileDisplaced, recover.RemedyMoveBack},
		"renamed, and another made": {
			with(func(f *Facts) { f.At, f.Named = Stranger, Elsewhere }), recover.FileDisplaced, recover.RemedyReplace,
		},
		"a link left": {with(func(f *Facts) { f.At, f.Named = Nothing, OtherLink }), recover.FileDisplaced, recover.RemedyLinkBack},
		"hidden":      {with(func(f *Facts) { f.At, f.Named = Stranger, Hidden }), recover.FileDisplaced, recover.RemedyMount},
		"deleted, its mount detached": {
			with(func(f *Facts) { f.At, f.Named, f.Reachable = Nothing, NoName, false }), recover.FileDeleted, recover.RemedyMount,
		},
		"one of several": {with(func(f *Facts) { f.Holder, f.At = Ambiguous, Nothing }), recover.FileUnknown, recover.RemedyLook},
		"gone, off": {
			Facts{Kind: Essential, Holder: Nobody, At: Nothing, Reachable: true}, recover.FileMissing, recover.RemedyRestore,
		},
		"there, off":           {Facts{Kind: Essential, Holder: Nobody, At: Stranger}, recover.FilePresent, ""},
		"a symlink there, off": {Facts{Kind: Essential, Holder: Nobody, At: NoFile}, recover.FileUnknown, recover.RemedyLook},
		"a directory there, off": {
			Facts{Kind: Essential, Holder: Nobody, At: NoDisk}, recover.FileMissing, recover.RemedyRestore,
		},
		"gone, off, and another is there": {
			Facts{Kind: Essential, Holder: Nobody, At: Nothing, Instead: true}, recover.FileUnknown, recover.RemedyLook,
		},
		"no NVRAM, off": {
			Facts{Kind: Essential, Holder: Nobody, At: Nothing, Templated: true}, recover.FileMissing, recover.RemedyMake,
		},
		"no NVRAM, though it runs": {
			Facts{Kind: Essential, Active: true, Holder: Nobody, At: Nothing, Templated: true}, recover.FileMissing, recover.RemedyRestore,
		},
		"an empty NVRAM": {
			Facts{Kind: Essential, Holder: Nobody, At: NoDisk, Templated: true}, recover.FileMissing, recover.RemedyRestore,
		},
		"no disk.info": {Facts{Kind: Made, Active: true, Holder: Nobody, At: Nothing}, recover.FileMissing, recover.RemedyMake},
		"no log":       {Facts{Kind: Log, Holder: Nobody, At: Nothing}, recover.FileMissing, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := File(c.facts); got.State != c.state || got.Remedy != c.remedy {
				t.Errorf("%+v; want %s, %q", got, c.state, c.remedy)
			}
		})
	}
}
