package chaos

import (
	"fmt"
	"slices"
	"sync"
)

// A disk has so many blocks that are written, and as many after them that are only read.
const (
	blocks    = 256
	blockSize = 4 << 10
	diskSize  = 2 * blocks * blockSize
)

const (
	firstPattern = 1    // of every block before the guest's first start
	basePattern  = 0xba // of what is only read
)

// ledger is what a disk must hold. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	next    int            // number of the next write
	sure    [blocks]byte   // acknowledged
	perhaps map[int][]byte // attempted since, by block: they may be there
	acks    int            // writes that were acknowledged
	last    [blocks]int    // number of the write that sure is
}

func newLedger() *ledger {
	l := &ledger{perhaps: map[int][]byte{}, next: blocks}
	for n := range l.sure {
		l.sure[n] = firstPattern
	}
	return l
}

// attempt returns the block of the next write and its pattern. From now on it may be there.
func (l *ledger) attempt() (number, block int, pattern byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number = l.next
	l.next++
	block = number % blocks
	pattern = byte(number/blocks%250 + 1)
	l.perhaps[block] = append(l.perhaps[block], pattern)
	return number, block, pattern
}

// acknowledge makes a write one that must be there.
func (l *ledger) acknowledge(number, block int, pattern byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sure[block], l.last[block] = pattern, number
	delete(l.perhaps, block)
	l.acks++
}

func (l *ledger) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// missing says which acknowledged blocks are not in a disk's bytes; empty when all are.
func (l *ledger) missing(data []byte) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(data) < blocks*blockSize {
		return fmt.Sprintf("%d bytes instead of %d", len(data), diskSize)
	}
	first, count := "", 0
	for n := range blocks {
		block := data[n*blockSize : (n+1)*blockSize]
		found := block[0]
		torn := slices.ContainsFunc(block, func(b byte) bool { return b != found })
		if !torn && (found == l.sure[n] || slices.Contains(l.perhaps[n], found)) {
			continue
		}
		if count++; first == "" {
			first = fmt.Sprintf("block %d is %d instead of %d (write %d)", n, found, l.sure[n], l.last[n])
			if torn {
				first += ", torn"
			}
		}
	}
	if count > 1 {
		first += fmt.Sprintf(", and %d more", count-1)
	}
	return first
}

// adopt takes a disk's bytes for what it must hold, where they differ.
func (l *ledger) adopt(data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range blocks {
		if (n+1)*blockSize <= len(data) {
			l.sure[n] = data[n*blockSize]
		}
	}
	clear(l.perhaps)
}
