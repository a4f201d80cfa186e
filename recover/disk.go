package recover

import "fmt"

// diskOf returns the disk of a domain that a file is the top image of.
func diskOf(d Domain, f FilePlan) (Disk, error) {
	for _, disk := range d.Disks {
		if disk.Target == f.Target && disk.Chain[0].Path == f.Path {
			return disk, nil
		}
	}
	return Disk{}, fmt.Errorf("%w: the domain has no disk %s at %s any more", ErrRefused, f.Target, f.Path)
}
