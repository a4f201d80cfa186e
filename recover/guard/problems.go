package guard

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// The kinds of problems with files that can't be held.
const (
	aboutTree = "tree-open" // that the tree scan has found
	aboutOpen = "open"      // that a full scan has found
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

// list returns the sentences, and of many or long ones some; nil when there are none. First those
// about the host, then those about instances, then those about files, which others can give any
// number of names; each kind in alphabetical order.
func (p *problems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	subjects := slices.SortedFunc(maps.Keys(p.texts), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(p.texts[a], p.texts[b]))
	})
	var texts []string
	for _, subject := range subjects {
		texts = append(texts, p.texts[subject])
	}
	return briefProblems(texts)
}

// rank is where the problems with subjects of this kind are told.
func rank(subject string) int {
	kind, _, isOfOne := strings.Cut(subject, " ")
	switch {
	case kind == aboutTree || kind == aboutOpen || subject == "beyond":
		return 2
	case isOfOne:
		return 1
	}
	return 0
}

// unsaved notes that an instance's record could not be written; nothing when err is nil.
func (p *problems) unsaved(instance string, err error) {
	if err != nil {
		p.set("save", fmt.Errorf("the record of %s can't be written: %w", instance, err))
	}
}
