package guard

import (
	"bytes"
	"encoding/json"

	"github.com/os-rescue/os-rescue/recover"
)

// statusPart is one message of the guard's status: the first has all but the
// instances, which may be many, and each of the others some of them.
type statusPart struct {
	Status    *Status            `json:"status,omitempty"`
	Instances []recover.Instance `json:"instances,omitempty"`
}

// partBytes is what is put into one message; the protocol takes 128 KiB.
const partBytes = 64 << 10

// splitStatus encodes a status as the messages for a client; joinStatus is its reverse.
func splitStatus(status Status) []json.RawMessage {
	instances := status.Report.Instances
	incidents := status.Incidents
	status.Report.Instances, status.Incidents = nil, nil
	parts := []json.RawMessage{encodePart(statusPart{Status: &status})}
	for len(incidents) > 0 { // by themselves, because of their paths
		n := min(len(incidents), 50)
		parts = append(parts, encodePart(statusPart{Status: &Status{Incidents: incidents[:n]}}))
		incidents = incidents[n:]
	}
	var chunk []recover.Instance
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

// joinStatus puts the parts of a status together.
func joinStatus(parts []json.RawMessage) (Status, error) {
	var status Status
	instances := []recover.Instance{}
	var incidents []Incident
	for n, data := range parts {
		var part statusPart
		d := json.NewDecoder(bytes.NewReader(data))
		if err := d.Decode(&part); err != nil {
			return Status{}, err
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
