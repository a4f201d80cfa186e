package scan

import "encoding/json"

// DiskInfoContent returns the text of a disk.info with those formats, by path, as
// DiskInfo returns them. Nova reads it with json.loads, so the order does not matter
// (nova/virt/libvirt/imagebackend.py).
func DiskInfoContent(formats map[string]string) (string, error) {
	data, err := json.Marshal(formats)
	return string(data), err
}
