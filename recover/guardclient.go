package recover

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// statusPart is one message of the guard's status: the first has all but the
// instances, which may be many, and each of the others some of them.
type statusPart struct {
	Status    *GuardStatus `json:"status,omitempty"`
	Instances []Instance   `json:"instances,omitempty"`
}

// partBytes is what is put into one message; the protocol takes 128 KiB.
const partBytes = 64 << 10

// Status returns what the guard knows and holds.
func (g *Guard) Status() GuardStatus {
	held, released := g.holds.heldSum()
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GuardStatus{Running: true, Started: g.started, Scanned: g.scanned, Report: g.report, Held: held, Released: released, IncidentsSeen: g.seen}
	for _, i := range g.incidents {
		c := *i
		c.Paths = slices.Clone(i.Paths)
		s.Incidents = append(s.Incidents, c)
	}
	slices.SortFunc(s.Incidents, func(a, b Incident) int { return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.UUID, b.UUID)) })
	for _, text := range g.problems {
		s.Problems = append(s.Problems, text)
	}
	slices.Sort(s.Problems)
	return s
}

// statusParts are Status for a client.
func (g *Guard) statusParts() []json.RawMessage {
	status := g.Status()
	instances := status.Report.Instances
	incidents := status.Incidents
	status.Report.Instances, status.Incidents = nil, nil
	parts := []json.RawMessage{encodePart(statusPart{Status: &status})}
	for len(incidents) > 0 { // by themselves, because of their paths
		n := min(len(incidents), 50)
		parts = append(parts, encodePart(statusPart{Status: &GuardStatus{Incidents: incidents[:n]}}))
		incidents = incidents[n:]
	}
	var chunk []Instance
	size := 0
	for _, i := range instances {
		data := encodePart(i)
		if size+len(data) > partBytes && len(chunk) > 0 {
			parts = append(parts, encodePart(statusPart{Instances: chunk}))
			chunk, size = nil, 0
		}
		chunk, size = append(chunk, i), size+len(data)
	}
	if len(chunk) > 0 {
		parts = append(parts, encodePart(statusPart{Instances: chunk}))
	}
	return parts
}

// encodePart encodes what has no value that can't be encoded.
func encodePart(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		data = []byte("{}")
	}
	return data
}

// Guard returns what the guard of this host knows, from its last scan and what it
// has noticed since: it is not made to scan. Running is false when no guard runs.
func (e *Engine) Guard(ctx context.Context) (GuardStatus, error) {
	c, err := keeper.ConnectGuard(ctx, e.Settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return GuardStatus{}, nil
	}
	if err != nil {
		return GuardStatus{}, err
	}
	defer c.Close()
	parts, err := c.Status(ctx)
	if err != nil {
		return GuardStatus{}, err
	}
	status, err := joinStatus(parts)
	if err != nil {
		return GuardStatus{}, fmt.Errorf("the guard's answer: %w", err)
	}
	status.Running, status.PID = true, c.PID()
	return status, nil
}

// joinStatus puts the parts of a status together.
func joinStatus(parts []json.RawMessage) (GuardStatus, error) {
	var status GuardStatus
	instances := []Instance{}
	var incidents []Incident
	for n, data := range parts {
		var part statusPart
		d := json.NewDecoder(bytes.NewReader(data))
		if err := d.Decode(&part); err != nil {
			return GuardStatus{}, err
		}
		if part.Status != nil && n == 0 {
			status = *part.Status
		}
		if part.Status != nil {
			incidents = append(incidents, part.Status.Incidents...)
		}
		instances = append(instances, part.Instances...)
	}
	status.Report.Instances, status.Incidents = instances, incidents
	return status, nil
}

// GuardRelease has the guard let go of the deleted files that it holds for an
// instance, because an operator says that they are not needed. Their data is gone
// then, unless another process has them open. ErrUnusable when no guard runs.
func (e *Engine) GuardRelease(ctx context.Context, uuid string) error {
	c, err := keeper.ConnectGuard(ctx, e.Settings.StateDir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	defer c.Close()
	return c.ReleaseFor(ctx, keeper.ReleasedByHand, uuid)
}
