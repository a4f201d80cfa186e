package recovertest

import "encoding/binary"

// AccessList is an access control list (linux/posix_acl_xattr.h), as the attribute
// system.posix_acl_access has it: the owner reads and writes, one more user
// and all others read: the mode of a disk in the owners' table.
func AccessList(user uint32) []byte {
	const nobody = ^uint32(0)
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 6, nobody}, {2, 4, user}, {4, 4, nobody}, {16, 4, nobody}, {32, 4, nobody}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}
