package recover

import "fmt"

// ComputeIDName is the name of the file in which Nova keeps the UUID of its compute node
// since 27.0.0 (2023.1), in state_path or beside a configuration file (nova/virt/node.py).
// Without it a nova-compute that is not new on its host refuses to start: "No local node
// identity found, but this is not our first startup on this host" (nova/compute/manager.py).
const ComputeIDName = "compute_id"

// ComputeIDFault says that the host's compute_id is not as the guard has seen it. There is
// none where the guard never saw one, as with older releases of Nova.
type ComputeIDFault struct {
	Path string `json:"path"` // where the guard saw it
	UUID string `json:"uuid"` // that it had
	Copy string `json:"copy"` // the guard's copy
	// Problem says what stands there now; empty when nothing does.
	Problem string `json:"problem,omitempty"`
}

// Missing is true when nothing stands in its place, so that a run can put it back.
func (f ComputeIDFault) Missing() bool { return f.Problem == "" }

// Sentence says what is wrong, and what that means.
func (f ComputeIDFault) Sentence() string {
	if f.Missing() {
		return fmt.Sprintf("%s is missing, the file with the UUID of Nova's compute node (%s): without it nova-compute can't start again, "+
			"and then Nova reboots nothing here", f.Path, f.UUID)
	}
	return fmt.Sprintf("the UUID of Nova's compute node is not as the guard saw it in %s (%s): %s. nova-compute refuses to start with "+
		"a wrong one; os-rescue leaves it as it is. \"openstack hypervisor list\" says which one is right. If the guard's is not, "+
		"remove its copy: %s", f.Path, f.UUID, f.Problem, f.Copy)
}

// ComputeIDHint says what is to be done when nova-compute refuses to start for want of the
// file at path, and the guard has no copy.
func ComputeIDHint(path string) string {
	return fmt.Sprintf("if it refuses to start with \"No local node identity found\" in its log (Nova 2023.1 and later), write the UUID that "+
		"\"openstack hypervisor list\" shows for this host to %s, for nova:nova", path)
}
