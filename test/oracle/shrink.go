package oracle

import "slices"

// shrink returns the shortest script that it finds to fail still. fails plays a script and
// says whether it shows the same fault; it is asked at most tries times.
//
// It is delta debugging's simple form: leave out halves, then quarters, then single steps,
// until none can be left out.
func shrink(s script, fails func(script) bool, tries int) script {
	ask := func(candidate script) bool {
		if tries <= 0 {
			return false
		}
		tries--
		return fails(candidate)
	}
	for size := max(1, len(s.Steps)/2); len(s.Steps) > 0; {
		shorter := false
		for from := 0; from < len(s.Steps); {
			to := min(from+size, len(s.Steps))
			candidate := script{Layouts: s.Layouts, Steps: slices.Delete(slices.Clone(s.Steps), from, to)}
			if ask(candidate) {
				s, shorter = candidate, true
			} else {
				from = to
			}
		}
		if size == 1 && !shorter || tries <= 0 {
			break
		}
		size = max(1, size/2)
	}
	// Fewer guests, and with fewer disks.
	for n := len(s.Layouts) - 1; n > 0; n-- {
		if candidate := (script{Layouts: slices.Clone(s.Layouts[:n]), Steps: s.Steps}); ask(candidate) {
			s = candidate
		}
	}
	for n := range s.Layouts {
		for _, simpler := range []func(*layout){
			func(l *layout) { l.Eph = false }, func(l *layout) { l.Config = false },
		} {
			candidate := script{Layouts: slices.Clone(s.Layouts), Steps: s.Steps}
			simpler(&candidate.Layouts[n])
			if candidate.Layouts[n] != s.Layouts[n] && ask(candidate) {
				s = candidate
			}
		}
	}
	return s
}
