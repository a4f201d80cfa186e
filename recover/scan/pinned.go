package scan

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
)

// pinned are the files that the keeper and the guard hold.
type pinned []pin.Held

// of returns the pins that belong, or may belong, to an instance.
func (p pinned) of(uuid string) []candidate {
	var list []candidate
	for _, h := range p {
		// The guard may not have learned yet which instances use a cached image: then
		// it may be anybody's.
		if slices.Contains(h.Owners, uuid) || len(h.Owners) == 0 {
			list = append(list, candidate{HeldFile: h.HeldFile, pinPath: h.Meta.Path, needed: h.Meta.Needed,
				belongs: h.Meta.Belongs, retired: slices.Contains(h.Meta.Retired, uuid), opened: h.Meta.Opened || h.Meta.Run != pin.GuardRun})
		}
	}
	return list
}

// files returns the files that are pinned for an instance but not named by its
// definition, followed by the named ones: overlays need their backing files, which
// the definition of a shut-off domain does not name.
func (p pinned) files(uuid string, named []recover.File) []recover.File {
	var files []recover.File
	for _, h := range p {
		if h.Meta.Role == recover.RoleOther || !slices.Contains(h.Owners, uuid) {
			continue
		}
		// The guard also holds files that are in order, and files of earlier times.
		if h.Meta.Run == pin.GuardRun && h.Meta.Role != recover.RoleBacking && (!h.Meta.Needed || !h.Unlinked()) {
			continue
		}
		path := placeOf(h, uuid)
		same := func(f recover.File) bool { return f.Path == path }
		if slices.ContainsFunc(named, same) || slices.ContainsFunc(files, same) {
			continue
		}
		files = append(files, recover.File{
			Path:     path,
			Role:     h.Meta.Role,
			Format:   h.Meta.Format,
			Target:   h.Meta.Target,
			Backing:  h.Meta.Backing,
			Writable: h.Meta.Role == recover.RoleDisk || h.Meta.Role == recover.RoleNVRAM,
			Holders:  []recover.Holder{},
		})
	}
	return slices.Concat(files, named)
}

// placeOf returns where a pinned file belongs for an instance: the path that its definition
// gave it, for the file may have been renamed since, unless Nova itself has renamed it or the
// instance was defined anew.
func placeOf(h pin.Held, uuid string) string {
	c := candidate{HeldFile: h.HeldFile}
	if h.Meta.Belongs == "" || c.isOfNova() || slices.Contains(h.Meta.Retired, uuid) {
		return h.Meta.Path
	}
	return h.Meta.Belongs
}
