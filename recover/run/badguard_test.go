package run_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// badGuard answers at the socket of a host's guard: say sends the messages that follow a
// request of that operation, and hangs up by an empty one. uid is who listens.
func badGuard(h *runtest.Host, uid int, say func(op string, send func(string) bool)) {
	t := h.T
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	recovertest.Must(t, err)
	recovertest.Must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(h.Settings.StateDir, "guard.sock")}))
	func() { // SO_PEERCRED tells who called listen(2) (unix(7)): this thread, as that user
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		as := func(uid int) {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				t.Fatal(errno)
			}
		}
		as(uid)
		defer as(0)
		waiting := 1 // connections that are not accepted yet: the next one finds no room
		if say != nil {
			waiting = 64
		}
		recovertest.Must(t, unix.Listen(fd, waiting))
	}()
	f := os.NewFile(uintptr(fd), "guard.sock")
	l, err := net.FileListener(f)
	recovertest.Must(t, err)
	recovertest.Must(t, f.Close())
	t.Cleanup(func() { l.Close() })
	if say == nil {
		return // it accepts nobody
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				send := func(text string) bool {
					if text == "" {
						conn.Close()
						return false
					}
					_, err := conn.Write([]byte(text))
					return err == nil
				}
				buf := make([]byte, 128<<10)
				for {
					n, err := conn.Read(buf)
					var request struct{ Op string }
					if err != nil || n == 0 || json.Unmarshal(buf[:n], &request) != nil {
						return
					}
					say(request.Op, send)
				}
			}()
		}
	}()
}

const hello = `{"protocol":1,"births":true}`

// polite says who it is, and then does something else.
func polite(then func(op string, send func(string) bool)) func(string, func(string) bool) {
	return func(op string, send func(string) bool) {
		if op == "hello" {
			send(hello)
			return
		}
		then(op, send)
	}
}

func TestARescueNeedsNoGuard(t *testing.T) {
	const nobody = 65534
	hold := func(key string) string {
		return fmt.Sprintf(`{"hold":{"key":%q,"owners":[%q],"since":"2026-01-02T03:04:05Z",`+
			`"meta":{"path":"/x","role":"disk","run":"guard","needed":true}}}`, key, recovertest.UUID(1))
	}
	says := func(messages ...string) func(string, func(string) bool) {
		return func(_ string, send func(string) bool) {
			for _, m := range messages {
				send(m)
			}
		}
	}
	for name, c := range map[string]struct {
		uid  int
		say  func(op string, send func(string) bool)
		want string // in the fault
	}{
		"accepts nobody":         {want: "does not answer"},
		"says nothing":           {say: says(), want: "does not answer"},
		"says half of an answer": {say: says(`{"protocol":1,"bir`), want: "malformed message"},
		"says nonsense":          {say: says("\x00\xff\x1b[2J"), want: "malformed message"},
		"says too much at once":  {say: says(`"` + strings.Repeat("x", 150<<10) + `"`), want: "a message of more than"},
		"is of another release":  {say: says(`{"protocol":7}`), want: "version 7"},
		"says nothing more":      {say: polite(says(hold("1:2"))), want: "does not answer"},
		"has no end": {say: polite(func(_ string, send func(string) bool) {
			text := hold("1:" + strings.Repeat("9", 10))
			text = text[:len(text)-1] + `,"dir":"` + strings.Repeat("x", 60<<10) + `"}`
			for send(text) {
				continue
			}
		}), want: "does not answer"}, // its end of bytes, or of time
		"holds what it does not": {say: polite(says(hold("1:2"), hold("3:4:b5"), `{"end":true}`)), want: "2 files which it does not have open"},
		"has records of nothing": {say: polite(says(
			`{"hold":{"key":"1:2","owners":null,"meta":[7],"since":"2026-01-02T03:04:05Z"}}`, `{"end":true}`)), want: "1 files which"},
		"hangs up":         {say: polite(says("")), want: "hangs up"},
		"hangs up midway":  {say: polite(says(hold("1:2"), "")), want: "hangs up"},
		"hangs up at once": {say: says(""), want: "hangs up"},
		"refuses":          {say: polite(says(`{"error":"I would prefer not to"}`)), want: "prefer not to"},
		"is somebody else": {uid: nobody, say: says(hello), want: "uid 65534"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := runtest.NewHost(t)
			v := h.Add(1, recovertest.GuestOptions{Base: "b1"})
			h.Purge()
			badGuard(h, c.uid, c.say)
			begun := time.Now()
			var others sync.WaitGroup
			others.Go(func() {
				if s, err := guard.Ask(t.Context(), h.Settings.StateDir); err == nil {
					t.Errorf("its status is %+v", s)
				}
			})
			others.Go(func() { _ = guard.ReleaseByHand(t.Context(), h.Settings.StateDir, v.UUID) }) // it ends
			r, err := h.ScanAll(t.Context())
			recovertest.Must(t, err)
			if r.Instances[0].Verdict != recover.VerdictRecoverable || !strings.Contains(r.GuardFault, c.want) ||
				!strings.Contains(r.GuardFault, "the guard") {
				t.Errorf("a scan says %s, and of the guard %q", r.Instances[0].Verdict, r.GuardFault)
			}
			ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
			recovertest.Must(t, err)
			if i := ran.Instances[0]; i.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(ran.Warnings, "\n"), c.want) {
				t.Errorf("%s (%s), and %q", i.Outcome, i.Error, ran.Warnings)
			}
			recovertest.Must(t, v.Back())
			others.Wait()
			if took := time.Since(begun); took > patience.Of(90*time.Second) {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestACheckHasTimeForItsScanWhenTheGuardHangs(t *testing.T) {
	for name, say := range map[string]func(op string, send func(string) bool){
		"from the beginning": func(string, func(string) bool) {},
		"after its hello":    polite(func(string, func(string) bool) {}),
		"for scans only": polite(func(op string, send func(string) bool) {
			if op == "status" {
				send(`{"end":true}`) // it has not scanned yet
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := runtest.NewHost(t)
			h.Add(1, recovertest.GuestOptions{})
			h.Purge()
			badGuard(h, 0, say)
			ctx, cancel := context.WithTimeout(t.Context(), patience.Of(6*time.Second))
			defer cancel()
			r, err := check.Make(ctx, check.SourcesOf(h.Settings, h.ScanAll), check.Options{})
			recovertest.Must(t, err)
			if r.Level != check.Critical || r.Source != check.SourceScan || r.Lost() != 1 {
				t.Errorf("%s from %q: %v", r.Level, r.Source, r.Findings)
			}
		})
	}
}
