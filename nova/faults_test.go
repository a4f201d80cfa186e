package nova

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
)

// faults goes wrong instead of passing a request on, and counts what it saw.
type faults struct {
	next http.Handler

	mu     sync.Mutex
	wrong  func(*http.Request) func(http.ResponseWriter, *http.Request) // nil: pass it on
	counts map[string]int                                               // by "METHOD last-path-element"
}

// faultyCloud puts faults before a recording.
func faultyCloud(t *testing.T, name string) (*cloud, *faults) {
	t.Helper()
	if bed != nil {
		t.Skip("faults are injected into recordings only")
	}
	c := openCloud(t, name)
	f := &faults{next: *c.handler, counts: map[string]int{}}
	*c.handler = f
	return c, f
}

func (f *faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.counts[r.Method+" "+r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]++
	serve := f.next.ServeHTTP
	if f.wrong != nil {
		if wrong := f.wrong(r); wrong != nil {
			serve = wrong
		}
	}
	f.mu.Unlock()
	serve(w, r)
}

func (f *faults) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[what]
}

// first lets the first n of Nova's requests about an instance go wrong.
func (f *faults) first(n int, wrong func(http.ResponseWriter, *http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.counts)
	f.wrong = func(r *http.Request) func(http.ResponseWriter, *http.Request) {
		if n == 0 || !strings.Contains(r.URL.Path, "/servers/") {
			return nil
		}
		n--
		return wrong
	}
}

func status(code int, headers ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		w.Write([]byte("<html>the proxy's page</html>"))
	}
}

func broken(w http.ResponseWriter, _ *http.Request) {
	conn, _, _ := w.(http.Hijacker).Hijack()
	conn.Close()
}

func cutShort(w http.ResponseWriter, _ *http.Request) {
	conn, _, _ := w.(http.Hijacker).Hijack()
	conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"server\": {"))
	conn.Close()
}

// silent answers when the client has gone.
func silent(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // the server sees the client go only after that
	<-r.Context().Done()
}

type fault struct {
	name  string
	wrong func(http.ResponseWriter, *http.Request)
	// rejected: it proves that the request was not carried out.
	rejected bool
}

func passing() []fault {
	return []fault{
		{name: "500", wrong: status(500)},
		{name: "502", wrong: status(502)},
		{name: "503", wrong: status(503)},
		{name: "503 with a wait", wrong: status(503, "Retry-After", "0")},
		{name: "504", wrong: status(504)},
		{name: "429", wrong: status(429), rejected: true},
		{name: "broken connection", wrong: broken},
		{name: "no answer", wrong: silent},
	}
}

func TestWhatIsIdempotentIsAskedAgainAfterAFaultThatPasses(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	opts := quick()
	opts.CallLimit = 200 * time.Millisecond
	c := cloud.open(t, cloud.Vars["admin"], cloud.Vars["admin-project"], opts)
	web1 := cloud.Vars["web1"]
	for _, fault := range append(passing(), fault{name: "answer cut short", wrong: cutShort}) {
		t.Run(fault.name, func(t *testing.T) {
			f.first(2, fault.wrong)
			if s, err := c.Server(t.Context(), web1); err != nil || s.Name != "web1" {
				t.Errorf("Server: %+v, %v", s, err)
			}
			if n := f.count("GET " + web1); n != 3 {
				t.Errorf("asked %d times, want 3", n)
			}
			if fault.name == "answer cut short" {
				return // the body of an action's answer is not read
			}
			for name, do := range map[string]func() error{
				"Lock":   func() error { return c.Lock(t.Context(), web1, "disk is being brought back") },
				"Unlock": func() error { return c.Unlock(t.Context(), web1) },
			} {
				f.first(2, fault.wrong)
				if err := do(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if n := f.count("POST action"); n != 3 {
					t.Errorf("%s: asked %d times, want 3", name, n)
				}
			}
		})
	}
}

func TestARebootOrPauseThatMayHaveBeenAcceptedIsNotAskedForAgain(t *testing.T) {
	cloud, f := faultyCloud(t, "lock")
	opts := quick()
	opts.CallLimit = 200 * time.Millisecond
	c := cloud.open(t, cloud.Vars["admin"], cloud.Vars["admin-project"], opts)
	web2 := cloud.Vars["web2"]
	for _, fault := range passing() {
		t.Run(fault.name, func(t *testing.T) {
			f.first(1, fault.wrong)
			err := c.HardReboot(t.Context(), web2)
			n := f.count("POST action")
			if fault.rejected {
				if err != nil || n != 2 {
					t.Errorf("HardReboot after a refusal: %v, asked %d times", err, n)
				}
				return
			}
			if n != 1 {
				t.Errorf("HardReboot: asked %d times, want once", n)
			}
			mention(t, err, recover.ErrCloudUnavailable, cloud.URL, "look at the instance")
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a call's own limit looks like the end of the caller's context: %v", err)
			}
			f.first(1, fault.wrong)
			mention(t, c.Pause(t.Context(), web2), recover.ErrCloudUnavailable, "look at the instance")
			if n := f.count("POST action"); n != 1 {
				t.Errorf("Pause: asked %d times, want once", n)
			}
		})
	}
}

// refusing is a transport that can't connect for the first requests.
type refusing struct {
	next  http.RoundTripper
	times int
	err   error
}

func (r *refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.times > 0 {
		r.times--
		return nil, r.err
	}
	return r.next.RoundTrip(req)
}

func TestARebootIsAskedForAgainWhenTheConnectionWasRefused(t *testing.T) {
	cloud, f := faultyCloud(t, "lock")
	c := cloud.admin(t)
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	c.provider.HTTPClient.Transport = &refusing{next: c.provider.HTTPClient.Transport, times: 2, err: refused}
	if err := c.HardReboot(t.Context(), cloud.Vars["web2"]); err != nil {
		t.Error(err)
	}
	if n := f.count("POST action"); n != 1 {
		t.Errorf("arrived %d times, want once", n)
	}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	c.provider.HTTPClient.Transport = &refusing{next: http.DefaultTransport, times: 1, err: reset}
	mention(t, c.HardReboot(t.Context(), cloud.Vars["web2"]), recover.ErrCloudUnavailable, "connection reset")
	if n := f.count("POST action"); n != 1 {
		t.Errorf("arrived %d times, want no second", n)
	}
}

func TestWhatDoesNotPassWithinTheTimeIsUnavailable(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	opts := quick()
	opts.RetryFor = 20 * time.Millisecond
	c := cloud.open(t, cloud.Vars["admin"], cloud.Vars["admin-project"], opts)
	for _, fault := range []func(http.ResponseWriter, *http.Request){status(503), broken} {
		f.first(-1, fault)
		_, err := c.Server(t.Context(), cloud.Vars["web1"])
		mention(t, err, recover.ErrCloudUnavailable, cloud.URL+"/compute/v2.1/servers/"+cloud.Vars["web1"])
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	c := cloud.admin(t)
	f.first(1, status(429, "Retry-After", "1"))
	start := time.Now()
	if _, err := c.Server(t.Context(), cloud.Vars["web1"]); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(start); waited < time.Second {
		t.Errorf("waited %v, asked for 1 s", waited)
	}
	// More than RetryFor: no use waiting.
	f.first(-1, status(429, "Retry-After", "3600"))
	_, err := c.Server(t.Context(), cloud.Vars["web1"])
	mention(t, err, recover.ErrCloudUnavailable, "HTTP 429")
	if n := f.count("GET " + cloud.Vars["web1"]); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": 24 * time.Hour,
		"Sun, 22 Nov 2026 12:00:05 GMT": 5 * time.Second, "Sun, 22 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestAnAnswerThatIsNotNovasIsNoProofThatAnInstanceIsGone(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	c := cloud.admin(t)
	for name, wrong := range map[string]func(http.ResponseWriter, *http.Request){
		"a proxy's 404": status(404),
		"406":           status(406),
		"413":           status(413),
		"another URL's 404": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			w.Write([]byte(`{"error": {"message": "no"}}`))
		},
		"an empty answer": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{}`)) },
		"a page":          func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`<html>`)) },
		"a redirect":      status(302, "Location", "http://elsewhere.test/"),
		"another's record": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(strings.ReplaceAll(partial, "ID", other)))
		},
		"a record in pieces": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"server": {"id": 7}}`)) },
	} {
		t.Run(name, func(t *testing.T) {
			f.first(-1, wrong)
			if s, err := c.Server(t.Context(), cloud.Vars["web1"]); err == nil || errors.Is(err, recover.ErrNoInstance) ||
				!errors.Is(err, recover.ErrCloudUnavailable) {
				t.Errorf("%+v, %v", s, err)
			}
			if n := f.count("GET " + cloud.Vars["web1"]); n > 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

func TestAListThatIsMissingIsNotAnEmptyOne(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	c := cloud.admin(t)
	for _, answer := range []string{`{"services": null, "projects": null, "servers": null}`, `{}`, `<html>sign in</html>`} {
		f.wrong = func(r *http.Request) func(http.ResponseWriter, *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/shop") { // it is no ID
				return status(http.StatusNotFound)
			}
			return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(answer)) }
		}
		_, err := c.ComputeService(t.Context(), "compute1")
		mention(t, err, recover.ErrCloudUnavailable)
		_, err = c.Project(t.Context(), "shop", "")
		mention(t, err, recover.ErrCloudUnavailable)
	}
}

func TestAnAnswerThatHasNoEndIsEnded(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	c := cloud.admin(t)
	const most = 4 << 20 // which is read in time on any machine
	c.provider.HTTPClient.Transport.(*transport).most = most
	var sent atomic.Int64 // counted after the client has hung up, too
	f.first(-1, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"server": "`))
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for range 16 * most >> 20 {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
		w.Write([]byte(`"}`))
	})
	_, err := c.Server(t.Context(), cloud.Vars["web1"])
	mention(t, err, recover.ErrCloudAnswer, "longer")
	if n := f.count("GET " + cloud.Vars["web1"]); n != 1 || sent.Load() > 8*most {
		t.Errorf("asked %d times, and took %d bytes", n, sent.Load())
	}
}

func TestAListThatHasNoEndIsEnded(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	c := cloud.admin(t)
	another := func(page int) string { return fmt.Sprintf("11111111-1111-4111-8111-%012d", page) }
	pages := 0
	answer := func(uuid func(int) string) {
		pages = 0
		f.wrong = func(*http.Request) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) {
				pages++
				fmt.Fprintf(w, `{"servers": [%s], "servers_links": [{"rel": "next", "href": "?marker=m%d"}]}`,
					strings.Replace(partial[len(`{"server": `):len(partial)-1], "ID", uuid(pages), 1), pages)
			}
		}
	}
	for _, one := range []struct {
		uuid     func(page int) string
		listSize int
		pages    int
		says     string
	}{
		{func(int) string { return other }, maxList, 2, "repeat"},
		{another, maxList, maxPages, "no end"},
		{another, 1000, 7, "no end"},
	} {
		answer(one.uuid)
		c.opts.listSize = one.listSize
		_, err := c.listOnce(t.Context(), nil)
		mention(t, err, recover.ErrCloudAnswer, one.says)
		if pages != one.pages {
			t.Errorf("%d pages were read, want %d: %v", pages, one.pages, err)
		}
	}
}

const (
	other   = "11111111-1111-4111-8111-111111111111"
	partial = `{"server": {"id": "ID", "status": "UNKNOWN", "tenant_id": "p"}}`
)

func TestATokenGoesToNoOtherServer(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	c := cloud.admin(t)
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request went to the other server") }))
	defer thief.Close()
	f.first(-1, status(307, "Location", thief.URL+"/"))
	_, err := c.Server(t.Context(), cloud.Vars["web1"])
	mention(t, err, recover.ErrCloudUnavailable, "redirected")
}

func TestACancelledContextEndsTheWaitingBetweenTwoRequests(t *testing.T) {
	cloud, f := faultyCloud(t, "records")
	opts := quick()
	opts.firstWait, opts.RetryFor = time.Hour, 3*time.Hour
	c := cloud.open(t, cloud.Vars["admin"], cloud.Vars["admin-project"], opts)
	ctx, cancel := context.WithCancel(t.Context())
	f.first(-1, status(503))
	stop := context.AfterFunc(ctx, func() {})
	defer stop()
	ctx = zerolog.New(writerFunc(func(line []byte) {
		if bytes.Contains(line, []byte("trying again")) {
			cancel()
		}
	})).WithContext(ctx)
	if _, err := c.Server(ctx, cloud.Vars["web1"]); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestEachRequestLeavesOneLineInTheLogAndNoSecret(t *testing.T) {
	cloud, _ := faultyCloud(t, "records")
	cloud.use(t, cloud.Vars["admin"], cloud.Vars["admin-project"])
	var log bytes.Buffer
	ctx := zerolog.New(&log).WithContext(t.Context())
	c, err := Open(ctx, quick())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Server(ctx, cloud.Vars["web1"]); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(log.String(), `"message":"OpenStack API"`); int64(lines) != c.Calls() {
		t.Errorf("%d lines for %d requests", lines, c.Calls())
	}
	for _, want := range []string{
		`"method":"GET"`,
		`"path":"/compute/v2.1/servers/` + cloud.Vars["web1"],
		`"status":200`,
		`"ms":`,
		`"request_id":"req-`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s", want)
		}
	}
	for _, secret := range []string{`token-1`, scrubbed} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log gives %q away", secret)
		}
	}
}
