package guard

import "github.com/os-rescue/os-rescue/recover"

// partings are the files that were let go, of which the keeper may have a twin, by inode.
type partings map[recover.Inode]*parting

// parting is a file that was let go, for some of its owners or for all.
type parting struct {
	owners  map[string]bool // empty: for all
	times   int             // how often it was noted
	settled bool            // the keeper does not hold it for them
}

// note notes that a file was let go for some owners, or for all when none are named.
func (p partings) note(key recover.Inode, owners ...string) {
	one := p[key]
	switch {
	case one == nil:
		one = &parting{owners: map[string]bool{}}
		p[key] = one
	case len(owners) == 0, len(one.owners) == 0:
		one.owners, owners = map[string]bool{}, nil // for all
	}
	one.times++
	one.settled = false
	for _, o := range owners {
		one.owners[o] = true
	}
}

// open returns what is not settled, and how often each was noted.
func (p partings) open() map[recover.Inode]int {
	list := map[recover.Inode]int{}
	for key, one := range p {
		if !one.settled {
			list[key] = one.times
		}
	}
	return list
}

// settle notes that the keeper holds none of those any more that open has returned, unless one was noted
// again since.
func (p partings) settle(done map[recover.Inode]int) {
	for key, times := range done {
		if one := p[key]; one != nil && one.times == times {
			one.settled = true
		}
	}
}

// forget forgets what is settled. A scan that began before may still have seen it with the keeper.
func (p partings) forget() {
	for key, one := range p {
		if one.settled {
			delete(p, key)
		}
	}
}

func (p *parting) isFor(owner string) bool { return len(p.owners) == 0 || p.owners[owner] }
