package scan

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
)

// basesInUse finds out what the QEMUs of a host have open of the image cache, by path: a
// cached image never changes, so what one instance has open is what another one, which is
// off, needs. The error is the hypervisor's or the context's.
func basesInUse(ctx context.Context, l *look, hypervisor recover.Hypervisor) (map[string][]candidate, error) {
	domains, err := hypervisor.Domains(ctx)
	if err != nil {
		return nil, err
	}
	bases := map[string][]candidate{}
	for _, d := range domains {
		if err := addBasesOf(ctx, l, d, bases); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			// Its own verdict says so.
			zerolog.Ctx(ctx).Debug().Err(err).Str("domain", d.Name).Msg("its backing files are not looked at")
		}
	}
	return bases, nil
}

// heldByOthers returns what the QEMUs of other instances have open of a cached image: what
// stands at its path, if one of them has that, else the only one that any of them has.
func heldByOthers(l *look, f recover.File, here recover.Inode, exists bool) (of *openFile, unsure []*openFile, err error) {
	bases, err := l.inUse()
	if err != nil {
		return nil, nil, err
	}
	files := openFiles(bases[f.Path])
	if n := slices.IndexFunc(files, func(o *openFile) bool { return exists && o.inode == here }); n >= 0 {
		return files[n], nil, nil
	}
	if len(files) == 1 {
		return files[0], nil, nil
	}
	return nil, files, nil
}

// addBasesOf adds the cached images that the QEMU of a domain has open.
func addBasesOf(ctx context.Context, l *look, d recover.Domain, bases map[string][]candidate) error {
	files := ExpectedFiles(d, l.settings.InstancesPath)
	isBase := func(f recover.File) bool { return isCachedBase(f, l.settings.InstancesPath) }
	if d.PID == 0 || !slices.ContainsFunc(files, isBase) {
		return nil
	}
	own, tree, err := l.held(ctx, d, &recover.Instance{})
	if err != nil {
		return err
	}
	defer tree.Close()
	places := map[string]identity.Status{}
	for n := range files {
		files[n].Resolved = tree.Resolve(files[n].Path)
		if st, err := tree.Stat(files[n].Path); err == nil {
			places[files[n].Path] = st
		}
	}
	images := openFiles(slices.DeleteFunc(candidates(own), func(c candidate) bool { return !isImage(c) }))
	m := match(files, images, nil, places, knownInodes(l.pins.of(d.UUID)))
	for _, f := range files {
		of := m.of[f.Path]
		if of == nil || !isBase(f) {
			continue
		}
		for _, c := range of.fds {
			c.pinPath = f.Path
			bases[f.Path] = append(bases[f.Path], c)
		}
	}
	return nil
}

// isCachedBase is true for a backing file in Nova's image cache.
func isCachedBase(f recover.File, instancesPath string) bool {
	return f.Role == recover.RoleBacking && filepath.Dir(f.Path) == filepath.Join(instancesPath, "_base")
}
