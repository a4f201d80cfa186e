package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// cachedBases returns the backing files that the disks of a shut-off domain need, so
// that a scan can report a missing one. libvirt does not name them, and os-rescue
// follows no path that an image names. So it takes from the header only the name of a
// file in Nova's own image cache, and only checks whether that file exists.
func cachedBases(ctx context.Context, l *look, d recover.Domain, named []recover.File) []recover.File {
	cache := filepath.Join(l.settings.InstancesPath, "_base")
	known := map[string]bool{}
	for _, f := range named {
		known[f.Path] = true
	}
	var files []recover.File
	for _, disk := range d.Disks {
		top := disk.Chain[0]
		if disk.ChainKnown || len(disk.Chain) > 1 || top.Source != recover.SourceFile || top.Format != "qcow2" {
			continue
		}
		name, err := backingName(l, d.UUID, top.Path)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("path", top.Path).Msg("the header of a disk can't be read")
			continue
		}
		if same, err := sameFile(l.root, filepath.Dir(name), cache); !same || err != nil || !isCachedName(filepath.Base(name)) {
			continue
		}
		if name = filepath.Join(cache, filepath.Base(name)); known[name] {
			continue
		}
		known[name] = true
		files = append(files, recover.File{Path: name, Role: recover.RoleBacking, Target: disk.Target, Holders: []recover.Holder{}})
	}
	return files
}

// backingName returns the path of the backing file that the header of the qcow2 image at
// path names, "" for none and for no file. It reads a deleted image through its holder.
func backingName(l *look, uuid, path string) (string, error) {
	f, err := l.root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, h := range l.pins.of(uuid) {
			if h.pinPath == path {
				f, err = os.Open(fmt.Sprintf("%s/%d/fd/%d", procfs.Dir, h.PID, h.FD))
				break
			}
		}
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	// A guard's descriptor may have O_DIRECT.
	header, err := qcow2.ParseHeader(qcow2.Aligned{File: f}, st.Size)
	if err != nil || header.BackingFile == "" {
		return "", err
	}
	named, err := readBackingName(header.BackingFile)
	if named.path != "" && !filepath.IsAbs(named.path) {
		named.path = filepath.Dir(path) + "/" + named.path
	}
	return named.path, err
}

// isCachedName is true for a name that Nova may give a cached image: the SHA-1 of the
// image's ID, followed by a size if it was resized, or ephemeral_* or swap_*
// (nova/virt/libvirt/imagecache.py and driver.py).
func isCachedName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
	return name != "" && name[0] != '.' && strings.Trim(name, allowed) == ""
}
