package guard

import (
	"bytes"
	"encoding/json"
	"fmt"

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
	whole := status
	status.Report.Instances, status.Report.Foreign, status.Incidents, status.SoftDeleted = nil, nil, nil, nil
	foreign := whole.Report.Foreign
	if more := len(foreign) - foreignFiles; more > 0 {
		foreign = foreign[:foreignFiles]
		status.Problems = append(status.Problems[:len(status.Problems):len(status.Problems)],
			fmt.Sprintf("and %d more deleted files that processes write which libvirt does not know", more))
	}
	parts := []json.RawMessage{encodePart(statusPart{Status: &status})}
	add := func(part statusPart) { parts = append(parts, encodePart(part)) }
	inParts(whole.Incidents, func(list []Incident) { add(statusPart{Status: &Status{Incidents: list}}) })
	inParts(whole.SoftDeleted, func(list []string) { add(statusPart{Status: &Status{SoftDeleted: list}}) })
	inParts(foreign, func(list []recover.Foreign) { add(statusPart{Status: &Status{Report: recover.Report{Foreign: list}}}) })
	var instances []recover.Instance
	for _, i := range whole.Report.Instances {
		instances = append(instances, briefInstance(i))
	}
	inParts(instances, func(list []recover.Instance) { add(statusPart{Instances: list}) })
	return parts
}

// inParts calls do for pieces of a list of which each fits into one message.
func inParts[T any](list []T, do func([]T)) {
	begin, size := 0, 0
	for n, one := range list {
		data := len(encodePart(one))
		if size+data > partBytes && n > begin {
			do(list[begin:n])
			begin, size = n, 0
		}
		size += data
	}
	if begin < len(list) {
		do(list[begin:])
	}
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
	all := Status{Report: recover.Report{Instances: []recover.Instance{}}}
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
			all.Incidents = append(all.Incidents, part.Status.Incidents...)
			all.SoftDeleted = append(all.SoftDeleted, part.Status.SoftDeleted...)
			all.Report.Foreign = append(all.Report.Foreign, part.Status.Report.Foreign...)
		}
		all.Report.Instances = append(all.Report.Instances, part.Instances...)
	}
	status.Incidents, status.SoftDeleted = all.Incidents, all.SoftDeleted
	status.Report.Instances, status.Report.Foreign = all.Report.Instances, all.Report.Foreign
	return status, nil
}
