package novaconf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Options say where to look for Nova's configuration.
type Options struct {
	// File is a nova.conf that the operator named, in this process's own root; what
	// nova-compute reads beside it is read too. Empty: that of the host's nova-compute.
	File string
	// Proc is where the kernel shows processes; empty looks for no running nova-compute.
	Proc string
	// Root is the "/" in which files are looked for when no nova-compute runs.
	Root string
}

// containerDirs are where deployments keep, on the host, what they mount into the container
// of nova-compute as /etc/nova: Kolla (its config.json copies from there) and TripleO.
func containerDirs() []string {
	return []string{"/etc/kolla/nova-compute", "/var/lib/config-data/puppet-generated/nova_libvirt/etc/nova"}
}

// Read reads Nova's configuration. notes are for the operator: why a running nova-compute
// was passed over. The error wraps fs.ErrNotExist when there is no configuration at all, as
// after a purge of Nova's packages, and ErrMalformed when it is not understood.
func Read(ctx context.Context, o Options) (c Conf, notes []string, err error) {
	root, err := procfs.OpenRoot(o.Root)
	if err != nil {
		return Conf{}, nil, err
	}
	defer root.Close()
	if o.File != "" {
		c, err = beside(root, o.File)
		return c, nil, err
	}
	if o.Proc != "" {
		c, notes, err = ofProcess(ctx, o.Proc, root)
		if err != nil || len(c.files) > 0 {
			return c, notes, err
		}
	}
	for _, dirs := range append([][]string{searchDirs("", nil)}, eachAlone(containerDirs())...) {
		c = Conf{values: map[name]Setting{}}
		found, err := c.inDirs(root, dirs)
		if found || err != nil {
			return c, notes, err
		}
	}
	return Conf{}, notes, fmt.Errorf("no configuration of Nova's: %w", os.ErrNotExist)
}

func eachAlone(dirs []string) [][]string {
	var all [][]string
	for _, d := range dirs {
		all = append(all, []string{d})
	}
	return all
}

// beside reads a nova.conf that was named, and from its directory what nova-compute reads
// beside it.
func beside(root procfs.Root, file string) (Conf, error) {
	c := Conf{values: map[name]Setting{}}
	if err := c.readPlaces(root, []place{{path: file}}); err != nil {
		return Conf{}, err
	}
	files, dirs := defaultFiles(root, []string{filepath.Dir(file)})
	var rest []string
	for _, f := range files {
		if filepath.Base(f) == "nova-compute.conf" {
			rest = append(rest, f)
		}
	}
	return c, c.readPlaces(root, placesOf(rest, dirs))
}

// command is the command name of nova-compute: the kernel takes it from the script.
const command = "nova-compute"

// maxPassed is how many processes that are passed over are named each: everybody can start many.
const maxPassed = 3

// ofProcess reads what the host's nova-compute reads. It returns a Conf without files when
// none runs, or when several run that disagree: then none of them may be this host's.
func ofProcess(ctx context.Context, proc string, own procfs.Root) (Conf, []string, error) {
	pids, err := procfs.Named(proc, command)
	if err != nil {
		return Conf{}, nil, err
	}
	var all []Conf
	var notes []string
	passed := 0
	for _, pid := range pids {
		if ctx.Err() != nil {
			return Conf{}, nil, ctx.Err()
		}
		c, err := readAs(proc, pid, own)
		switch {
		case errors.Is(err, unix.ESRCH): // it has ended
		case errors.Is(err, errDangling): // what others read is not what this one did
			return Conf{}, nil, fmt.Errorf("nova-compute (process %d): %w", pid, err)
		case err != nil:
			if passed++; passed <= maxPassed {
				notes = append(notes, fmt.Sprintf("the configuration of nova-compute (process %d) can't be read and counts for nothing: %v", pid, err))
			}
		case !c.libvirtDriver():
		default:
			all = append(all, c)
		}
	}
	if passed > maxPassed {
		notes = append(notes, fmt.Sprintf("and %d more processes of that name", passed-maxPassed))
	}
	all, disagree := preferHere(all)
	notes = append(notes, disagree...)
	for _, c := range all[min(1, len(all)):] {
		if !agree(all[0], c) {
			return Conf{}, append(notes, "several nova-computes run here that have different configurations, so none of them counts: "+
				"set nova_conf, or host and instances_path"), nil
		}
	}
	if len(all) == 0 {
		return Conf{}, notes, nil
	}
	return all[0], notes, nil
}

// preferHere returns those that run in this process's own tree, if there are such: the others
// are nested containers. notes name those of them that disagree.
func preferHere(all []Conf) (preferred []Conf, notes []string) {
	for _, c := range all {
		if c.here {
			preferred = append(preferred, c)
		}
	}
	if len(preferred) == 0 {
		return all, nil
	}
	for _, c := range all {
		if !c.here && !agree(preferred[0], c) {
			notes = append(notes, fmt.Sprintf("%s sees another tree and has another configuration than %s of this host, which counts: "+
				"if that is wrong, set nova_conf, or host and instances_path", c.reader, preferred[0].reader))
		}
	}
	return preferred, notes
}

// agree is true when two configurations have the same host and instances path.
func agree(a, b Conf) bool {
	hostA, err1 := a.Host()
	hostB, err2 := b.Host()
	pathA, err3 := a.InstancesPath()
	pathB, err4 := b.InstancesPath()
	return firstOf(err1, err2, err3, err4) == nil && hostA.Value == hostB.Value && pathA.Value == pathB.Value
}

// errNotNovas: a command name is anybody's, and so are a command line and an environment.
var errNotNovas = errors.New("it is neither root's nor of the user nova")

// isNovas is true for a process of root's, or of the user that is called nova in its own tree,
// which only root gives it: packages and images of Nova make that user.
func isNovas(p *procfs.Process, root procfs.Root) bool {
	if p.IsRoot() {
		return true
	}
	uid, ok := uidOf(root, "nova")
	return ok && p.IsUser(uid)
}

// maxPasswd bounds, in bytes, how much of a file of users is read.
const maxPasswd = 1 << 20

// uidOf returns the ID of a user of that name in a tree (passwd(5)).
func uidOf(root procfs.Root, user string) (uint32, bool) {
	f, err := root.Open("/etc/passwd")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(io.LimitReader(f, maxPasswd)); s.Scan(); {
		if fields := strings.Split(s.Text(), ":"); len(fields) > 2 && fields[0] == user {
			uid, err := strconv.ParseUint(fields[2], 10, 32)
			return uint32(uid), err == nil
		}
	}
	return 0, false
}

// readAs reads the configuration of one process, in its own root. errNotNovas when the process
// is not to be trusted.
func readAs(proc string, pid int, own procfs.Root) (Conf, error) {
	p, err := procfs.Open(proc, pid)
	if err != nil {
		return Conf{}, err
	}
	defer p.Close()
	if !p.IsRoot() && !p.HasOwnUsers() { // nothing of it is read: it may have made that so that it never ends
		return Conf{}, errNotNovas
	}
	root, err := procfs.OpenRoot(p.Root())
	if err != nil {
		return Conf{}, err
	}
	defer root.Close()
	if !isNovas(p, root) {
		return Conf{}, errNotNovas
	}
	args, err := p.Args()
	if err != nil {
		return Conf{}, err
	}
	environ, err := p.Environ()
	if err != nil {
		return Conf{}, err
	}
	cwd, err := os.Readlink(filepath.Join(proc, fmt.Sprint(pid), "cwd"))
	if err != nil {
		return Conf{}, err
	}
	c := Conf{values: map[name]Setting{}, env: map[string]string{}, reader: fmt.Sprintf("%s (process %d)", command, pid)}
	if c.here, err = root.SamePlace(own, "/x"); err != nil {
		return Conf{}, err
	}
	for _, e := range environ {
		// Nova's user can run anything by this name: it chooses among what root has written, and no more.
		if k, v, ok := strings.Cut(e, "="); ok && p.IsRoot() {
			c.env[k] = v
		}
	}
	// What the command line names comes after the defaults, whichever of these count
	// (cfg.py, _parse_config_files).
	given, anyFile, anyDir := named(args, cwd)
	if !p.IsRoot() {
		if err := mayName(root, given); err != nil {
			return Conf{}, err
		}
	}
	files, dirs := defaultFiles(root, searchDirs(c.env["HOME"], c.env))
	if anyFile {
		files = nil
	}
	if anyDir {
		dirs = nil
	}
	return c, c.readPlaces(root, append(placesOf(files, dirs), given...))
}
