package guard

import "testing"

func TestADomainThatChangesDuringAScanIsReadAtTheNext(t *testing.T) {
	s := newStaleDomains()
	if !s.take().has("a") {
		t.Fatal("at first every domain is to be read")
	}
	if s.take().has("a") {
		t.Fatal("nothing has changed since")
	}
	s.add("a")
	taken := s.take()
	if !taken.has("a") || taken.has("b") {
		t.Errorf("taken: %+v", taken)
	}
	s.add("b") // while the scan reads a
	if next := s.take(); next.has("a") || !next.has("b") {
		t.Errorf("next: %+v", next)
	}
	s.giveBack(taken) // the scan failed
	if again := s.take(); !again.has("a") || again.has("b") {
		t.Errorf("after the failure: %+v", again)
	}
	s.add("")
	if !s.take().has("c") {
		t.Error("anything may have happened to any")
	}
}
