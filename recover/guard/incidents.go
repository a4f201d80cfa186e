package guard

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
)

// Incident is an instance whose files were deleted although it exists.
type Incident struct {
	UUID   string `json:"uuid"`   // the instance's
	Domain string `json:"domain"` // its name in libvirt
	// Name, ProjectID and ProjectName are Nova's; empty when they are not known.
	Name        string    `json:"name,omitempty"`
	ProjectID   string    `json:"project_id,omitempty"`
	ProjectName string    `json:"project_name,omitempty"`
	Since       time.Time `json:"since"` // when the deletion was noticed
	// Found is the domain's state when the deletion was noticed.
	Found recover.DomainState `json:"found"`
	// Paths are those that the deleted files had: those that its definition names first, sorted.
	Paths []string `json:"paths"`
	// More is how many further files it has lost, when Paths would be too long.
	More  int   `json:"more,omitempty"`
	Bytes int64 `json:"bytes"` // of the deleted files on disk, holes not counted
	// Locked is true when it is locked in Nova, by the guard or by somebody before.
	Locked bool `json:"locked,omitempty"`
	// Replaced is true when it runs on other files by now, which nobody has proven
	// to have the deleted ones' content: those are still held.
	Replaced bool `json:"replaced,omitempty"`
}

// incidents are the instances that exist and have lost files. It is safe for
// concurrent use. What it returns is the caller's own.
type incidents struct {
	holds    *holdings
	records  *records
	last     *lastScan
	problems *problems
	onBegin  func() // called when there is a new one

	mu      sync.Mutex
	current map[string]*Incident // by UUID
	seen    int
	// softDeleted miss files, and their owners have deleted them.
	softDeleted []string
}

func newIncidents(holds *holdings, records *records, last *lastScan, problems *problems, onBegin func()) *incidents {
	return &incidents{holds: holds, records: records, last: last, problems: problems, onBegin: onBegin, current: map[string]*Incident{}}
}

// restore takes over the incidents of an earlier life from the records. With
// lookAgain those that had been locked in Nova are not taken for locked.
func (b *incidents) restore(lookAgain bool) {
	for _, uuid := range b.records.uuids() {
		r, _ := b.records.get(uuid)
		if r.Incident == nil {
			continue
		}
		incident := &Incident{UUID: uuid, Domain: r.Domain.Name, Since: r.Incident.Since, Found: r.Incident.Found,
			Locked: r.Lock != "" && !lookAgain}
		if n := r.Domain.Nova; n != nil {
			incident.Name, incident.ProjectID, incident.ProjectName = n.Name, n.ProjectID, n.ProjectName
		}
		b.mu.Lock()
		b.current[uuid] = incident
		b.mu.Unlock()
		b.describe(uuid)
	}
}

// begin notes an incident: an instance that exists has lost files. It is logged
// once. The files that the instance loses later in it are held like the first.
func (b *incidents) begin(ctx context.Context, i recover.Instance) {
	for _, f := range slices.Concat(i.Files, i.Nameless) {
		if f.Lost() && !wasOfRun(f.Path) {
			b.holds.need(f.Identity())
		}
	}
	gone := map[recover.Inode]bool{}
	for _, h := range b.holds.of(i.UUID) {
		if h.Deleted.IsZero() {
			continue
		}
		if !wasOfRun(h.Path) {
			b.holds.need(h.inode())
		}
		gone[h.inode()] = true
	}
	b.last.markDeleted(i.UUID, gone) // first: a status that has the incident has a report that fits
	now := time.Now().UTC()
	b.mu.Lock()
	_, known := b.current[i.UUID]
	if !known {
		b.current[i.UUID] = &Incident{
			UUID:        i.UUID,
			Domain:      i.Domain,
			Name:        i.Name,
			ProjectID:   i.ProjectID,
			ProjectName: i.ProjectName,
			Since:       now,
			Found:       i.State,
		}
		b.seen++
	}
	b.mu.Unlock()
	b.describe(i.UUID)
	if known {
		return
	}
	incident, _ := b.get(i.UUID)
	zerolog.Ctx(ctx).Error().Str("instance", i.UUID).Str("domain", i.Domain).Str("name", i.Name).Str("project", i.ProjectID).
		Str("state", string(i.State)).Strs("paths", incident.Paths).Str("size", humanize.IBytes(uint64(incident.Bytes))).
		Msg("files of an instance were deleted; they are held. Do not stop or reboot it: os-rescue scan says what to do")
	err := b.records.note(i.UUID, func(r *inventory.Record) {
		r.Incident = &inventory.Incident{Since: now, Found: i.State}
		if r.Domain.UUID == "" {
			r.Domain = i.Definition
		}
	})
	b.problems.unsaved(i.Domain, err)
	b.onBegin()
}

// end takes an incident for over.
func (b *incidents) end(ctx context.Context, uuid string) {
	incident, ok := b.get(uuid)
	if !ok {
		return
	}
	b.drop(uuid)
	zerolog.Ctx(ctx).Info().Str("instance", uuid).Str("domain", incident.Domain).Msg("the incident is over")
	b.problems.unsaved(cmp.Or(incident.Domain, uuid), b.records.update(uuid, func(r *inventory.Record) {
		if _, again := b.get(uuid); !again { // another one that has begun notes itself
			r.Incident = nil
		}
	}))
}

// noteSoftDeleted notes the instances that miss files and are SOFT_DELETED in Nova.
func (b *incidents) noteSoftDeleted(uuids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.softDeleted = uuids
}

// softDeletedOnes returns what noteSoftDeleted has noted last.
func (b *incidents) softDeletedOnes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.softDeleted)
}

// drop forgets an incident without a word.
func (b *incidents) drop(uuid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.current, uuid)
}

// describe fills in which files of an incident are deleted.
func (b *incidents) describe(uuid string) {
	var named, others []string
	var bytes int64
	for _, h := range b.holds.of(uuid) {
		if h.Deleted.IsZero() || !h.Needed {
			continue
		}
		if h.Belongs != "" {
			named = append(named, h.Path)
		} else {
			others = append(others, h.Path)
		}
		bytes += h.bytes
	}
	slices.Sort(named)
	slices.Sort(others)
	paths := slices.Compact(slices.Concat(named, others))
	n := fitting(paths, pathsBytes)
	b.update(uuid, func(i *Incident) { i.Paths, i.More, i.Bytes = paths[:n:n], len(paths)-n, bytes })
}

// Files is how many files it has lost.
func (i Incident) Files() int { return len(i.Paths) + i.More }

// update changes an incident, if there is one.
func (b *incidents) update(uuid string, do func(*Incident)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := b.current[uuid]; i != nil {
		do(i)
	}
}

// get returns an instance's incident; false when there is none.
func (b *incidents) get(uuid string) (Incident, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := b.current[uuid]; i != nil {
		return i.copy(), true
	}
	return Incident{}, false
}

// list returns the incidents by domain name, and how many began since the start.
func (b *incidents) list() (list []Incident, seen int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range b.current {
		list = append(list, i.copy())
	}
	slices.SortFunc(list, func(a, b Incident) int { return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.UUID, b.UUID)) })
	return list, b.seen
}

// any is true while there is an incident.
func (b *incidents) any() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.current) > 0
}

func (i *Incident) copy() Incident {
	c := *i
	c.Paths = slices.Clone(i.Paths)
	return c
}
