package guard

import "github.com/os-rescue/os-rescue/recover"

// partings are the files that were let go, of which the keeper may have a twin, by inode.
type partings map[recover.Inode]*parting

// parting is a file that was let go, for some of its owners or for all.
type parting struct {
	owners  map[string]bool // empty: for all
	settled bool            // the keeper does not hold it for them
}

// note notes that a file was let go for some owners, or for all when none are named.
func (p partings) note(key recover.Inode, owners ...string) {
	one := p[key]
	if one == nil || len(owners) == 0 {
		one = &parting{owners: map[string]bool{}}
		p[key] = one
	} else if len(one.owners) == 0 {
		return // for all
	}
	one.settled = false
	for _, o := range owners {
		one.owners[o] = true
	}
}

// settle notes that the keeper holds none of them any more for those that they were let go for.
func (p partings) settle(but map[recover.Inode]bool) {
	for key, one := range p {
		one.settled = one.settled || !but[key]
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
