package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// maxLayers is how many layers of a chain are followed.
const maxLayers = 32

// cachedBases returns the backing files that the disks of a shut-off domain need, so
// that a scan can report a missing one. libvirt does not name them, and os-rescue
// follows no path that an image names. So it takes from the header only the name of a
// file in Nova's own image cache, of which it only checks whether it exists, or in the
// instance's own directory: a layer below an external snapshot, whose header is read too.
// Of any other name it finds out only that nothing is there, and opens nothing. doubts say, a
// sentence each, why it can't be told that a chain is whole.
func cachedBases(ctx context.Context, l *look, d recover.Domain, named []recover.File) (files []recover.File, doubts []string) {
	known := map[string]bool{}
	for _, f := range named {
		known[f.Path] = true
	}
	for _, disk := range d.Disks {
		// As far as libvirt knows the chain.
		last := disk.Chain[len(disk.Chain)-1]
		if disk.ChainKnown || last.Source != recover.SourceFile || last.Format != "qcow2" {
			continue
		}
		layers, doubt := layersBelow(ctx, l, d.UUID, last.Path)
		if doubt != "" {
			doubts = append(doubts, doubt)
		}
		for _, layer := range slices.Backward(layers) {
			if !known[layer.Path] {
				known[layer.Path] = true
				layer.Target = disk.Target
				files = append(files, layer)
			}
		}
	}
	return files, doubts
}

// layersBelow returns the backing files below a qcow2 image of an instance, the nearest
// first, as far as their headers may be followed, and why it can't be told what lies below.
func layersBelow(ctx context.Context, l *look, uuid, path string) (layers []recover.File, doubt string) {
	cache, own := filepath.Join(l.settings.InstancesPath, "_base"), filepath.Join(l.settings.InstancesPath, uuid)
	for range maxLayers {
		name, format, err := backingName(l, uuid, path)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("path", path).Msg("the header of a disk can't be read")
			// Of the top the look at the file itself tells; what is missing is missing.
			if top := len(layers) == 0; !errors.Is(err, fs.ErrNotExist) && (!top || errors.Is(err, errNotTold)) {
				doubt = fmt.Sprintf("it can't be told which files lie below %s: %v", path, err)
			}
			return layers, doubt
		}
		in := func(dir string) bool {
			same, err := sameFile(l.root, filepath.Dir(name), dir)
			return err == nil && same && isCachedName(filepath.Base(name))
		}
		file := recover.File{Role: recover.RoleBacking, Holders: []recover.Holder{}}
		switch {
		case name == "":
			return layers, ""
		case in(cache):
			file.Path = filepath.Join(cache, filepath.Base(name))
			return append(layers, file), ""
		case !in(own):
			_, err := l.root.Stat(name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				file.Path = name
				layers = append(layers, file)
			case err != nil:
				doubt = fmt.Sprintf("the backing file of %s can't be looked at: %v", path, err)
			}
			return layers, doubt
		}
		path = filepath.Join(own, filepath.Base(name))
		file.Path = path
		layers = append(layers, file)
		if format != "qcow2" {
			return layers, ""
		}
	}
	return layers, fmt.Sprintf("more than %d layers lie below a disk, and the others were not looked at", maxLayers)
}

// backingName returns the path of the backing file that the header of the qcow2 image at
// path names, "" for none and for no file, and the format that it gives that file. It reads a
// deleted image through its holder.
func backingName(l *look, uuid, path string) (name, format string, err error) {
	f, err := l.root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, h := range l.pins.of(uuid) {
			if h.pinPath == path {
				var src copier.Source
				src, err = pin.Open(openFiles([]candidate{h})[0].file())
				f = src.File
				break
			}
		}
	}
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", "", err
	}
	// A guard's descriptor may have O_DIRECT.
	header, err := qcow2.ParseHeader(qcow2.Aligned{File: f}, st.Size)
	if err != nil || header.BackingFile == "" {
		return "", "", err
	}
	named, err := readBackingName(header.BackingFile)
	if named.path != "" && !filepath.IsAbs(named.path) {
		named.path = filepath.Dir(path) + "/" + named.path
	}
	return named.path, header.BackingFormat, err
}

// isCachedName is true for a name that Nova may give a cached image: the SHA-1 of the
// image's ID, followed by a size if it was resized, or ephemeral_* or swap_*
// (nova/virt/libvirt/imagecache.py and driver.py).
func isCachedName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
	return name != "" && name[0] != '.' && strings.Trim(name, allowed) == ""
}
