package nova

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A recording is what a real Keystone and Nova answered, with the names, IDs and
// counts that its test needs. It is made by RECORD=1 (see bed_test.go).
type recording struct {
	Made      string            `json:"made"` // of what, and when
	Vars      map[string]string `json:"vars"`
	Exchanges []exchange        `json:"exchanges"`
}

type exchange struct {
	Method       string            `json:"method"`
	Path         string            `json:"path"` // with the query
	Token        string            `json:"token,omitempty"`
	Microversion string            `json:"microversion,omitempty"`
	RequestBody  json.RawMessage   `json:"request_body,omitempty"`
	Status       int               `json:"status"`
	Headers      map[string]string `json:"headers,omitempty"`
	Body         json.RawMessage   `json:"body,omitempty"` // a string when it is not JSON
}

// placeholder is the server's URL in a recording.
const placeholder = "http://cloud.test"

// The password and secret of every user in a recording.
const scrubbed = "s3same"

func (e exchange) key() string {
	return strings.Join([]string{e.Method, e.Path, "token:" + e.Token, "microversion:" + e.Microversion, compact(e.RequestBody)}, " ")
}

func compact(text []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, text) != nil {
		return string(text)
	}
	return b.String()
}

// cloud is a server that a test signs in to.
type cloud struct {
	URL      string
	Vars     map[string]string
	handler  *http.Handler // what serves; a test may wrap it
	password string
}

// openCloud serves testdata/NAME.json, or records it.
func openCloud(t *testing.T, name string) *cloud {
	t.Helper()
	file := filepath.Join("testdata", name+".json")
	if bed != nil {
		return recordTo(t, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: record it against a real cloud with RECORD=1", err)
	}
	var r recording
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	replay := &replayer{t: t, answers: map[string][]exchange{}}
	for _, e := range r.Exchanges {
		replay.answers[e.key()] = append(replay.answers[e.key()], e)
	}
	return serve(t, replay, r.Vars)
}

func serve(t *testing.T, handler http.Handler, vars map[string]string) *cloud {
	t.Helper()
	c := &cloud{handler: &handler, Vars: vars, password: scrubbed}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*c.handler).ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// replayer answers what was recorded and fails the test on anything else. The same
// request gets its answers in their order, the last one again and again.
type replayer struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[string][]exchange
}

func (p *replayer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	self := "http://" + r.Host
	e := readRequest(r)
	e.RequestBody = json.RawMessage(strings.ReplaceAll(string(e.RequestBody), self, placeholder))
	p.mu.Lock()
	answers := p.answers[e.key()]
	if len(answers) > 1 {
		p.answers[e.key()] = answers[1:]
	}
	p.mu.Unlock()
	if len(answers) == 0 {
		p.t.Errorf("not recorded: %s", e.key())
		w.WriteHeader(http.StatusTeapot)
		return
	}
	answer := answers[0]
	for k, v := range answer.Headers {
		w.Header().Set(k, strings.ReplaceAll(v, placeholder, self))
	}
	w.WriteHeader(answer.Status)
	body := string(answer.Body)
	var page string
	if json.Unmarshal(answer.Body, &page) == nil {
		body = page
	}
	fmt.Fprint(w, strings.ReplaceAll(body, placeholder, self))
}

func readRequest(r *http.Request) exchange {
	body, _ := io.ReadAll(r.Body)
	return exchange{
		Method:       r.Method,
		Path:         r.URL.RequestURI(),
		Token:        r.Header.Get("X-Auth-Token"),
		Microversion: r.Header.Get("X-OpenStack-Nova-API-Version"),
		RequestBody:  body,
	}
}

// use sets the environment to a user of the cloud, and nothing else.
func (c *cloud) use(t *testing.T, user, project string) {
	t.Helper()
	cleanEnv(t)
	for k, v := range map[string]string{
		"OS_AUTH_URL": c.URL + "/identity/v3", "OS_USERNAME": user, "OS_PASSWORD": c.password, "OS_PROJECT_NAME": project,
		"OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default",
	} {
		t.Setenv(k, v)
	}
}

// cleanEnv leaves no credentials in the environment, and none in a file that
// gophercloud's loader would find.
func cleanEnv(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OS_") {
			t.Setenv(name, "")
		}
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	t.Chdir(home)
}

// The test's own Options: it waits for nothing.
func quick() Options {
	if bed != nil {
		return Options{}
	}
	return Options{RetryFor: 5 * time.Second, CallLimit: 10 * time.Second, firstWait: time.Millisecond}
}

func (c *cloud) open(t *testing.T, user, project string, opts Options) *Client {
	t.Helper()
	c.use(t, user, project)
	client, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return client
}

// admin signs in as the recordings' admin, member as the member of their project.
func (c *cloud) admin(t *testing.T) *Client {
	return c.open(t, c.Vars["admin"], c.Vars["admin-project"], quick())
}

func (c *cloud) member(t *testing.T) *Client {
	return c.open(t, c.Vars["member"], c.Vars["project-name"], quick())
}
