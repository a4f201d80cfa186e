package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// problems are what keeps a guard from its work, one sentence for each subject. It
// is safe for concurrent use.
type problems struct {
	mu    sync.Mutex
	texts map[string]string // by subject
}

func newProblems() *problems { return &problems{texts: map[string]string{}} }

// set notes the trouble with a subject, or with nil that there is none any more.
func (p *problems) set(subject string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.texts, subject)
		return
	}
	p.texts[subject] = err.Error()
}

// replace notes the troubles with all subjects of a kind: those that are not among
// them have passed.
func (p *problems) replace(kind string, errs map[string]error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.texts, func(subject, _ string) bool { return strings.HasPrefix(subject, kind+" ") })
	for subject, err := range errs {
		p.texts[kind+" "+subject] = err.Error()
	}
}

// list returns the sentences in alphabetical order; nil when there are none.
func (p *problems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Values(p.texts))
}

// unsaved notes that an instance's record could not be written; nothing when err is nil.
func (p *problems) unsaved(instance string, err error) {
	if err != nil {
		p.set("save", fmt.Errorf("the record of %s can't be written: %w", instance, err))
	}
}
