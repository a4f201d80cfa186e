package recover

import (
	"strconv"
	"strings"
)

// Inode identifies a file. Its number alone does so only while a process holds the file
// open: ext4, for one, gives a freed number to the next file that is made. The birth tells
// the two apart at any time.
type Inode struct {
	Device uint64 // st_dev (stat(2)); a boot may number devices anew
	Inode  uint64 // st_ino
	// Birth is "b" and the time of the file's making in nanoseconds since 1970 or, where
	// the file system does not note that, "g" and the hexadecimal file handle, which has
	// the generation of the number. Empty where neither is to be had, and in what
	// releases wrote that did not know it.
	Birth string
}

// Key returns the inode's name in journals and in the keeper: "device:inode:birth", without
// the last part where that is not known; empty for a zero Inode.
func (i Inode) Key() string {
	if i == (Inode{}) {
		return ""
	}
	key := strconv.FormatUint(i.Device, 10) + ":" + strconv.FormatUint(i.Inode, 10)
	if i.Birth != "" {
		key += ":" + i.Birth
	}
	return key
}

// ParseKey reads what Key returns; false for everything else.
func ParseKey(key string) (Inode, bool) {
	dev, rest, _ := strings.Cut(key, ":")
	ino, birth, _ := strings.Cut(rest, ":")
	var i Inode
	var err, err2 error
	i.Device, err = strconv.ParseUint(dev, 10, 64)
	i.Inode, err2 = strconv.ParseUint(ino, 10, 64)
	i.Birth = birth
	if err != nil || err2 != nil || !validBirth(birth) || i.Key() != key {
		return Inode{}, false
	}
	return i, true
}

// validBirth is true for an empty birth, and for one that is made as Inode.Birth says.
func validBirth(birth string) bool {
	digits := ""
	switch {
	case birth == "":
		return true
	case birth[0] == 'b':
		digits = strings.TrimPrefix(birth[1:], "-") // a clock may stand before 1970
		return digits != "" && strings.Trim(digits, "0123456789") == ""
	case birth[0] == 'g':
		digits = birth[1:]
	}
	return digits != "" && len(digits) <= 256 && strings.Trim(digits, "0123456789abcdef") == "" // MAX_HANDLE_SZ
}

// Is is true when both are the same file. Where the birth of one is not known the number
// has to tell: only if held, that is, if a descriptor holds the file that one of them was
// read from now, and the other was not read before somebody held it.
func (i Inode) Is(other Inode, held bool) bool {
	return i.Device == other.Device && i.IsNumbered(other, held)
}

// IsNumbered is Is for files on one file system that a boot may have given another device
// number.
func (i Inode) IsNumbered(other Inode, held bool) bool {
	if i.Inode != other.Inode {
		return false
	}
	if i.Birth == "" || other.Birth == "" {
		return held
	}
	return i.Birth == other.Birth
}

// Unborn returns the inode as releases wrote it that did not know births.
func (i Inode) Unborn() Inode { return Inode{Device: i.Device, Inode: i.Inode} }
