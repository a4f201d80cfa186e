package recover

import (
	"fmt"
	"io/fs"
)

// Directory is a directory of instances' files that is not as the table of owners says:
// root's, say, because somebody has made it by hand.
type Directory struct {
	Path string   `json:"path"` // absolute: the instances directory, or one below it
	UID  uint32   `json:"uid"`  // its owner now
	GID  uint32   `json:"gid"`  // its group now
	Mode FileMode `json:"mode"` // its permission bits now
	Want string   `json:"want"` // what the table says: "nova:nova 0755"
}

// Lack says how the directory is, and how it should be, as the end of a sentence about it.
func (d Directory) Lack() string {
	return fmt.Sprintf("is %d:%d %04o, and should be %s", d.UID, d.GID, uint32(d.Mode), d.Want)
}

// String writes a rule as "nova:nova 0755".
func (r OwnerRule) String() string {
	return fmt.Sprintf("%s:%s %04o", r.User, r.Group, uint32(r.Mode&fs.ModePerm))
}
