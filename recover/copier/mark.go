package copier

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// How far apart two writes may be and leave the same times, with some reserve: a kernel
// takes them from a clock that ticks every 1 to 10 ms (current_time in the kernel's
// fs/inode.c, CONFIG_HZ), some file systems note whole seconds only.
const (
	localTick  = 20 * time.Millisecond
	remoteTick = 100 * time.Millisecond
	wholeTick  = 1100 * time.Millisecond
)

// Mark is the state of a source at one moment, by which a later write shows. The zero Mark
// shows nothing: everything counts as written since then.
type Mark struct {
	size         int64
	mtime, ctime int64 // nanoseconds since 1970
	sure         bool  // the file system gives every write its time
}

// Mark returns the source's mark. Every write that begins after its return shows in
// Written; nobody writes the source meanwhile, or that is found out in another way. It
// waits until the clock of the file system has moved on since the last write: some tens of
// milliseconds where that was just now, a second where the file system notes no fractions.
//
// A write through O_DIRECT changes the times as any other does (file_modified in the
// kernel's fs/inode.c, which ext4, XFS and btrfs call before the data is written).
func (s Source) Mark(ctx context.Context) (Mark, error) {
	m, local, err := s.times()
	if err != nil || !m.sure {
		return Mark{}, err
	}
	tick := remoteTick
	if local {
		tick = localTick
	}
	if m.ctime%int64(time.Second) == 0 {
		tick = wholeTick
	}
	last := time.Unix(0, max(m.mtime, m.ctime))
	if local && time.Since(last) > tick {
		return m, nil
	}
	wait := time.NewTimer(tick) // the clock of another host may differ from this one's
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return Mark{}, ctx.Err()
	case <-wait.C:
		return m, nil
	}
}

// Written is true unless the source has provably not been written since the mark: neither
// its size nor a time of it has changed, on a file system that gives every write its time.
func (s Source) Written(m Mark) (bool, error) {
	now, _, err := s.times()
	return !m.sure || now != m, err
}

// IsSure is true when a write shows in the mark. On a file system of unknown habits it is
// not, and the content has to be read again.
func (m Mark) IsSure() bool { return m.sure }

// times asks the file system itself, as statFile does. local is true when it takes times
// from this host's clock.
func (s Source) times() (m Mark, local bool, err error) {
	fs, err := fileSystemOf(s.File)
	if err != nil {
		return Mark{}, false, err
	}
	st, err := s.stat()
	if err != nil {
		return Mark{}, false, err
	}
	return Mark{size: st.size, mtime: st.mtime, ctime: st.ctime, sure: fs.stamps}, fs.local, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*int64(time.Second) + int64(t.Nsec) }
