package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// pollInterval is how often link counts are looked at. A deletion by another client of CephFS
// or NFS makes no inotify event here (inotify(7), "Limitations and caveats").
const pollInterval = time.Second

// linkPoll notices deletions that nobody tells of: it looks at the link count of every file
// that is held, and, where files may not be held, of those that guests have open. A look at a
// thousand files of a local file system takes about a millisecond.
type linkPoll struct {
	holds  *holdings
	last   *lastScan
	onHeld func(context.Context) // called when a held file has lost its name, or has one again
	onOpen func()                // called when a file that is not held has lost its name

	told map[recover.Inode]bool // the files of which onOpen was told
}

// run polls until the context ends.
func (p *linkPoll) run(ctx context.Context) {
	for ctx.Err() == nil {
		recover.Pause(ctx, pollInterval)
		if ctx.Err() == nil {
			p.look(ctx)
		}
	}
}

// look looks at every file once.
func (p *linkPoll) look(ctx context.Context) {
	if p.isAnyHeldChanged() {
		p.onHeld(ctx)
	}
	if p.isAnyOpenDeleted() {
		p.onOpen()
	}
}

func (p *linkPoll) isAnyHeldChanged() bool {
	changed := false
	for _, hold := range p.holds.all() {
		var links uint32
		// An error means that it was let go since, or that its server does not answer.
		err := keeper.Control(hold.file, func(fd int) (err error) {
			links, err = linksNow(fd, "", unix.AT_EMPTY_PATH)
			return err
		})
		changed = changed || err == nil && (links == 0) == hold.Deleted.IsZero()
	}
	return changed
}

func (p *linkPoll) isAnyOpenDeleted() bool {
	report, _ := p.last.get()
	told := map[recover.Inode]bool{}
	fresh := false
	for _, i := range report.Instances {
		for _, f := range i.Files {
			if f.State != recover.FilePresent || len(f.Holders) == 0 || p.holds.has(f.Identity()) {
				continue
			}
			h := f.Holders[0]
			if h.PID == os.Getpid() {
				continue
			}
			links, err := linksNow(unix.AT_FDCWD, fmt.Sprintf("%s/%d/fd/%d", procfs.Dir, h.PID, h.FD), 0)
			if err == nil && links == 0 || errors.Is(err, unix.ESTALE) {
				told[f.Identity()] = true
				fresh = fresh || !p.told[f.Identity()]
			}
		}
	}
	p.told = told
	return fresh
}

// linksNow returns a file's link count as its server has it now, not as it was cached here
// (AT_STATX_FORCE_SYNC, statx(2)).
func linksNow(dir int, path string, flags int) (uint32, error) {
	var x unix.Statx_t
	err := unix.Statx(dir, path, flags|unix.AT_STATX_FORCE_SYNC, unix.STATX_NLINK, &x)
	return x.Nlink, err
}
