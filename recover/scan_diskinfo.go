package recover

import "encoding/json"

// diskInfoContent returns the text of a disk.info. Nova reads it with json.loads
// and never cares for its order (nova/virt/libvirt/imagebackend.py).
func diskInfoContent(formats map[string]string) (string, error) {
	data, err := json.Marshal(formats)
	return string(data), err
}
