package guard

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestWhatIsLetGoAgainMeanwhileIsNotSettled(t *testing.T) {
	key := recover.Inode{Device: 1, Inode: 2}
	p := partings{}
	p.note(key, "a")
	seen := p.open()
	p.note(key, "b")
	p.settle(seen)
	p.forget()
	if p[key] == nil || !p[key].isFor("a") || !p[key].isFor("b") || p[key].isFor("c") {
		t.Errorf("it is %+v", p[key])
	}
	p.note(key)
	if !p[key].isFor("c") {
		t.Error("it was let go for all")
	}
	p.note(key, "a")
	if !p[key].isFor("c") {
		t.Error("it was let go for all before")
	}
	p.settle(p.open())
	p.forget()
	if len(p) > 0 {
		t.Errorf("left: %+v", p)
	}
}
