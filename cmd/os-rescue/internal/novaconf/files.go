package novaconf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

const (
	maxFile  = 4 << 20 // bytes of one file; the sample with every option has a tenth of that
	maxFiles = 1000    // in one directory
)

// errDangling: a symlink stands where a file or directory of the configuration belongs. It may
// come back with what it leads to (a mount), so that nothing is taken for absent.
var errDangling = errors.New("a symlink that leads nowhere")

// dangling returns errDangling for a path that is, or is below, such a symlink.
func dangling(root procfs.Root, path string) error {
	link, target := root.Dangling(path + "/x")
	if link == "" {
		return nil
	}
	return fmt.Errorf("%s is %w, but to %q: bring that back, remove the link, or name another file with nova_conf", link, errDangling, target)
}

// place is a file, or a directory of which every *.conf is read in the order of their names.
type place struct {
	path  string
	isDir bool
}

// defaultFiles returns the files and directories that nova-compute looks for when its command
// line names none: of each name the first that exists (cfg.py, find_config_files and
// find_config_dirs), after what Red Hat's packages read first
// (/usr/share/nova/nova-dist.conf, a patch to their oslo.config). dirs are where to look.
// A symlink that leads nowhere is one of them: reading it fails.
func defaultFiles(root procfs.Root, dirs []string) (files, confDirs []string) {
	first := func(in []string, name string) (string, bool) {
		for _, dir := range in {
			path := filepath.Join(dir, name)
			if _, err := root.Stat(path); err == nil || dangling(root, path) != nil {
				return path, true
			}
		}
		return "", false
	}
	for _, dist := range []string{"nova-dist.conf", "nova-compute-dist.conf"} {
		if path, ok := first([]string{"/usr/share/nova"}, dist); ok {
			files = append(files, path)
		}
	}
	for _, name := range []string{"nova", "nova-compute"} {
		if path, ok := first(dirs, name+".conf"); ok {
			files = append(files, path)
		}
		if path, ok := first(dirs, name+".conf.d"); ok {
			confDirs = append(confDirs, path)
		}
	}
	return files, confDirs
}

// searchDirs are oslo.config's, for a user of that home; without a home that of packages
// (cfg.py, _get_config_dirs). env has those of a snap.
func searchDirs(home string, env map[string]string) []string {
	var dirs []string
	if home != "" {
		dirs = append(dirs, filepath.Join(home, ".nova"), home)
	}
	dirs = append(dirs, "/etc/nova", "/etc")
	for _, snap := range []string{"SNAP_COMMON", "SNAP"} {
		if env[snap] != "" {
			dirs = append(dirs, filepath.Join(env[snap], "etc/nova"))
		}
	}
	return dirs
}

// named returns what a command line names, in its order. A relative path is joined to cwd.
func named(args []string, cwd string) (found []place, anyFile, anyDir bool) {
	for len(args) > 0 {
		flag, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		if flag == "--" {
			break
		}
		if flag != "--config-file" && flag != "--config-dir" {
			continue
		}
		if !joined {
			if len(args) == 0 {
				break
			}
			value, args = args[0], args[1:]
		}
		if !filepath.IsAbs(value) {
			value = filepath.Join(cwd, value)
		}
		p := place{value, flag == "--config-dir"}
		found = append(found, p)
		anyFile, anyDir = anyFile || !p.isDir, anyDir || p.isDir
	}
	return found, anyFile, anyDir
}

// readPlaces reads files and directories into c, in this order. fs.ErrNotExist when one is
// missing, errDangling when a symlink is in its place.
func (c *Conf) readPlaces(root procfs.Root, all []place) error {
	for _, p := range all {
		files := []string{p.path}
		if p.isDir {
			if err := dangling(root, p.path); err != nil {
				return err
			}
			names, err := root.Names(p.path, maxFiles)
			if err != nil {
				return err
			}
			files = nil
			for _, n := range names { // glob's *.conf leaves out those that begin with a dot
				if strings.HasSuffix(n, ".conf") && !strings.HasPrefix(n, ".") {
					files = append(files, filepath.Join(p.path, n))
				}
			}
		}
		for _, file := range files {
			if err := dangling(root, file); err != nil {
				return err
			}
			if err := c.readFile(root, file); err != nil {
				return err
			}
			if !p.isDir {
				c.dirs = append(c.dirs, filepath.Dir(file))
			}
		}
	}
	return nil
}

// mayName returns nil when a process of Nova's user may name these places: each is one in which
// nova-compute looks anyway, or root's alone along its whole path.
func mayName(root procfs.Root, given []place) error {
	for _, p := range given {
		if slices.Contains(append(searchDirs("", nil), "/usr/share/nova"), filepath.Dir(p.path)) {
			continue
		}
		paths := []string{p.path}
		if p.isDir {
			names, err := root.Names(p.path, maxFiles)
			if err != nil {
				return err
			}
			for _, n := range names {
				paths = append(paths, filepath.Join(p.path, n))
			}
		}
		for _, path := range paths {
			if err := root.OursAlong(path); err != nil {
				return fmt.Errorf("%s, which it names: %w", path, err)
			}
		}
	}
	return nil
}

// readFile reads one file into c. It waits on no FIFO.
func (c *Conf) readFile(root procfs.Root, path string) error {
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := plainfile.All(f, maxFile)
	if errors.Is(err, plainfile.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err != nil {
		return err
	}
	all, err := parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c.add(path, all)
	c.novas = c.novas || root.OursAlong(path) != nil
	return nil
}

// inDirs reads the default files in dirs. found is false when there is none at all.
func (c *Conf) inDirs(root procfs.Root, dirs []string) (found bool, err error) {
	files, confDirs := defaultFiles(root, dirs)
	err = c.readPlaces(root, placesOf(files, confDirs))
	return len(files)+len(confDirs) > 0, err
}

func placesOf(files, dirs []string) []place {
	var all []place
	for _, f := range files {
		all = append(all, place{path: f})
	}
	for _, d := range dirs {
		all = append(all, place{path: d, isDir: true})
	}
	return all
}
