package oracle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

// proof puts what os-rescue says of one guest to the test. Nothing that follows in the
// sequence may depend on that guest.
type proof struct {
	*world
	g *guest
}

// verdict proves the verdict that a scan gives the guest now.
func (p proof) verdict(ctx context.Context) error {
	w, g := p.world, p.g
	if err := w.observe(ctx); err != nil {
		return err
	}
	if f := w.judge(); f != nil {
		return f
	}
	i, t := w.verdicts[g], w.truths[g]
	switch i.Verdict {
	case recover.VerdictIntact:
		return p.intact(ctx, "intact")
	case recover.VerdictRecoverable:
		return p.recoverable(ctx, t)
	case recover.VerdictDisplaced:
		return p.displaced(ctx, i, t)
	case recover.VerdictConflict:
		return p.conflict(ctx, i, t)
	case recover.VerdictLost, recover.VerdictUnknown, recover.VerdictUnaffected:
		// The rules have compared them already: who has what is all that they promise.
	}
	return nil
}

// intact has the guest write once more, destroys and starts it, and reads every byte.
func (p proof) intact(ctx context.Context, word string) error {
	w, g := p.world, p.g
	t, err := look(ctx, w, g)
	if err != nil {
		return err
	}
	if !t.intact() { // the rules allow that: it goes on with what nobody can know, or without a disk
		return nil
	}
	broken := func(text string) error {
		return &fault{word + ", it says, and a destroy and a start do not give every byte", g.name + ": " + text}
	}
	if t.running {
		for _, d := range g.disks {
			if d.readonly {
				continue
			}
			text, err := write(w, g, d, 3)
			if err != nil {
				return err
			}
			w.notes = append(w.notes, text)
		}
		if err := g.domain.Destroy(); err != nil {
			return err
		}
	}
	w.notes = append(w.notes, "destroy and start "+g.name)
	if err := g.domain.Create(); err != nil {
		return broken(err.Error())
	}
	if err := w.refresh(); err != nil {
		return err
	}
	switch text, err := misread(ctx, g); {
	case err != nil:
		return err
	case text != "":
		return broken(text)
	}
	return nil
}

// misread says what a running guest reads otherwise than it should; empty if nothing.
func misread(ctx context.Context, g *guest) (string, error) {
	data, err := bare.ReadGuest(ctx, g.domain, diskSize)
	if err != nil {
		return "", err
	}
	for _, d := range g.disks {
		if text := d.content.missing(data[d.target]); text != "" {
			return d.target + ": " + text, nil
		}
	}
	return "", nil
}

// recoverable lets os-rescue rescue the guest.
func (p proof) recoverable(ctx context.Context, t truth) error {
	w, g := p.world, p.g
	done, f, err := p.run(ctx)
	switch {
	case err != nil:
		return err
	case f != nil:
		return f
	case !done && (t.redirected() || t.unknownToNova()) && g.pid != 0:
		return nil // refused before anything was done: it would come back on another file
	case !done:
		return &fault{"recoverable, it says, and a run does not rescue it", short(g.name + w.last.summary() + "\n      truth: " + t.String())}
	}
	return p.intact(ctx, "rescued")
}

// run rescues one guest, and holds the run's word against the truth. done is true when
// the run says that it has brought it back.
func (p proof) run(ctx context.Context, more ...string) (done bool, f *fault, err error) {
	w, g := p.world, p.g
	before, pids := w.truths, w.pids()
	text, err := rescue(w, append([]string{"--instance", g.uuid}, more...))
	w.notes = append(w.notes, text)
	if err != nil {
		return false, nil, err
	}
	if err := w.refresh(); err != nil {
		return false, nil, err
	}
	if err := w.observe(ctx); err != nil {
		return false, nil, err
	}
	if f := w.judgeRun(before, w.truths, pids); f != nil {
		return false, f, nil
	}
	if g.pid == 0 {
		return w.last.result.Code == 0, nil, nil
	}
	switch text, err := misread(ctx, g); {
	case err != nil:
		return false, nil, err
	case text != "":
		return false, &fault{"a guest reads something else after a run", g.name + ": " + text}, nil
	}
	return w.last.result.Code == 0, nil, nil
}

// displaced does what the scan says that an operator should do.
func (p proof) displaced(ctx context.Context, i recover.Instance, t truth) error {
	w, g := p.world, p.g
	for range 4 { // one for each file that is elsewhere
		command := p.cure(i)
		if command == "" {
			break
		}
		w.notes = append(w.notes, "the cure: "+command)
		if err := w.shell(ctx, command); err != nil {
			return &fault{"displaced, it says, and the cure that it names can't be done", short(err.Error())}
		}
		if err := w.observe(ctx); err != nil {
			return err
		}
		if f := w.judge(); f != nil {
			return f
		}
		i, t = w.verdicts[g], w.truths[g]
		if i.Verdict != recover.VerdictDisplaced {
			break
		}
	}
	switch i.Verdict {
	case recover.VerdictIntact:
		return p.intact(ctx, "cured")
	case recover.VerdictRecoverable:
		return p.recoverable(ctx, t)
	case recover.VerdictConflict:
		return p.conflict(ctx, i, t)
	}
	done, f, err := p.run(ctx)
	switch {
	case err != nil:
		return err
	case f != nil:
		return f
	case !done && t.detached:
		return nil // nobody can name the way back to a mount that is gone
	case !done:
		return &fault{"displaced, it says, and neither its cure nor a run makes it intact", describe(g, i, t) + w.last.summary()}
	}
	return p.intact(ctx, "rescued")
}

// cure returns the command by which an operator does what the scan says of a displaced
// file; empty when it says nothing that can be done.
func (p proof) cure(i recover.Instance) string {
	searched := regexp.MustCompile("`find -xdev -inum ([0-9]+)`")
	mounts := regexp.MustCompile("`(mkdir -p [^`]* && mount --bind [^`]*)`")
	for _, f := range i.Files {
		if f.State != recover.FileDisplaced {
			continue
		}
		switch f.Remedy {
		case recover.RemedyMoveBack:
			return fmt.Sprintf("mkdir -p %s && mv -nT %s %s", filepath.Dir(f.Path), f.Found, f.Path)
		case recover.RemedyMount:
			if command := mounts.FindStringSubmatch(f.Reason); command != nil {
				return command[1]
			}
			if number := searched.FindStringSubmatch(f.Reason); number != nil {
				if path := pathOf(number[1]); path != "" {
					return fmt.Sprintf("mkdir -p %s && mv -nT %s %s", filepath.Dir(f.Path), path, f.Path)
				}
			}
			if dir, err := bare.LastMount(lab.NovaDir); err == nil && dir != "" {
				return "umount -l " + dir
			}
		}
	}
	return ""
}

// pathOf returns the path of an inode of the instances' file system that can be found there.
func pathOf(inode string) string {
	found := ""
	_ = filepath.WalkDir(lab.NovaDir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && fmt.Sprint(st.Ino) == inode {
			found = path
		}
		return nil
	})
	return found
}

// conflict has a run refuse, or keep what is equal.
func (p proof) conflict(ctx context.Context, i recover.Instance, t truth) error {
	g := p.g
	before, pid := tree(lab.NovaDir), g.pid
	done, f, err := p.run(ctx)
	switch {
	case err != nil:
		return err
	case f != nil:
		return f
	case done:
		return p.intact(ctx, "rescued")
	case g.pid != pid:
		return &fault{"a run refuses a conflict, and the guest is another", describe(g, i, t)}
	}
	after := tree(lab.NovaDir)
	if strings.Contains(p.last.summary(), "and stays: "+basePath()) {
		before, after = withoutBase(before), withoutBase(after)
	}
	if after != before {
		return &fault{"a run refuses a conflict, and has changed something", describe(g, i, t) + "\n" + before + "\n" + after}
	}
	if t.redirected() || t.unknownToNova() {
		return nil // what stands in the way is a definition
	}
	switch done, f, err = p.run(ctx, "--replace-existing"); {
	case err != nil:
		return err
	case f != nil:
		return f
	case done:
		return p.intact(ctx, "rescued")
	case p.cure(i) != "": // a deleted file beside one that a person must bring back first
		return p.displaced(ctx, i, t)
	}
	return nil
}

// withoutBase is a tree without the base, the directories that Nova keeps it and its lock in, and
// the number of links of the one above.
func withoutBase(tree string) string {
	lines := slices.DeleteFunc(strings.Split(tree, "\n"), func(line string) bool {
		return strings.HasPrefix(line, lab.InstancesDir+"/_base") || strings.HasPrefix(line, lab.InstancesDir+"/locks") ||
			strings.HasPrefix(line, lab.InstancesDir+" ")
	})
	return strings.Join(lines, "\n")
}

// tree lists what is below a directory, with the identity of each file.
func tree(dir string) string {
	var all strings.Builder
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err = errors.Join(err, unix.Lstat(path, &st)); err == nil {
			fmt.Fprintf(&all, "%s %o %d:%d inode %d links %d\n", path, st.Mode, st.Uid, st.Gid, st.Ino, st.Nlink)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	return all.String()
}
