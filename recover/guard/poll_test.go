package guard

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// A deletion by another client makes no event: here the server's own directory is another client.
func TestADeletionByAnotherClientIsNoticed(t *testing.T) {
	dir, behind := t.TempDir(), t.TempDir()
	server, err := lyingfs.Mount(dir, behind, lyingfs.Options{})
	recovertest.Must(t, err)
	t.Cleanup(func() { recovertest.Must(t, server.Unmount()) })
	open := func(name string) *os.File {
		recovertest.Must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
		f, err := os.Open(filepath.Join(dir, name))
		recovertest.Must(t, err)
		return f
	}
	b := newIncidentBed(t)
	recovertest.Must(t, b.holds.add(open("held"), holdMemory{Path: "held", Role: recover.RoleDisk}))
	qemu, err := recovertest.Hold("qemu-system-x86_64", nil, []recover.File{{Path: open("open").Name(), Writable: true}}, nil)
	recovertest.Must(t, err)
	defer qemu.End()
	report := recover.Report{Instances: []recover.Instance{{PID: qemu.Cmd.Process.Pid}}}
	files, err := procfs.HeldBy(t.Context(), qemu.Cmd.Process.Pid)
	recovertest.Must(t, err)
	for _, h := range files {
		if filepath.Base(h.Link) == "open" {
			report.Instances[0].Files = append(report.Instances[0].Files, recover.File{State: recover.FilePresent, Device: h.Stat.Dev,
				Inode: h.Stat.Ino, Birth: h.Stat.Birth, Holders: []recover.Holder{h.Holder()}})
		}
	}
	if len(report.Instances[0].Files) != 1 {
		t.Fatalf("it has %+v", files)
	}
	last := &lastScan{}
	last.set(report)
	held, opened := 0, 0
	p := &linkPoll{holds: b.holds, last: last, onHeld: func(context.Context) { held++ }, onOpen: func() { opened++ }}
	p.look(t.Context())
	if held != 0 || opened != 0 {
		t.Fatalf("before the deletion: %d held, %d open", held, opened)
	}
	for _, name := range []string{"held", "open"} {
		recovertest.Must(t, os.Remove(filepath.Join(behind, name)))
	}
	p.look(t.Context())
	p.look(t.Context())
	if held != 2 || opened != 1 { // what is held is told until it is noted
		t.Errorf("after the deletion: %d held, %d open", held, opened)
	}
}

// BenchmarkALookAtAThousandHolds is what a poll costs a second.
func BenchmarkALookAtAThousandHolds(b *testing.B) {
	holds := newHoldings(nil, func() {})
	b.Cleanup(holds.close)
	dir := b.TempDir()
	for n := range 1000 {
		f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)), os.O_RDWR|os.O_CREATE, 0o600)
		recovertest.Must(b, err)
		recovertest.Must(b, holds.add(f, holdMemory{Path: f.Name(), Role: recover.RoleDisk}))
	}
	p := &linkPoll{holds: holds, last: &lastScan{}, onHeld: func(context.Context) { b.Fatal("nothing was deleted") }, onOpen: func() {}}
	for b.Loop() {
		p.look(b.Context())
	}
}
