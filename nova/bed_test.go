package nova

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// bed is the real cloud that RECORD=1 records: the OS_* variables are of an admin
// of it. It makes what the tests need, and deletes it after them. On the bed of package
// openstack, which is reached from inside only:
//
//	bin/bed exec -- sh -c 'eval "$(bin/bed env)"; RECORD=1 go test ./nova -run TestX -count 1'
//
// RECORD_IMAGE and RECORD_FLAVOR are what its instances are made of. RECORD_CELL is a
// program that, called with "down" and an instance's UUID, moves that instance and
// a host compute2 to a cell without a database, by changing the nova_api database,
// and starts a nova-api (which reads the cells when it starts) at the URL
// RECORD_COMPUTE; with "up", it undoes that.
var bed *realCloud

type realCloud struct {
	identity, compute string // URLs up to and without /v3, /v2.1
	catalogued        string // compute, as the catalogue has it
	password          string
	token             string
	adminVars         map[string]string
	credentialSecret  string
	hidden            []string // old, new, ...: in what is stored
	undo              []func()
	recorded          map[string]bool // the files
}

func TestMain(m *testing.M) {
	code := 1
	func() {
		if os.Getenv("RECORD") != "" {
			bed = &realCloud{recorded: map[string]bool{}}
			defer func() {
				for i := len(bed.undo) - 1; i >= 0; i-- {
					bed.undo[i]()
				}
			}()
			bed.setUp()
		}
		code = m.Run()
	}()
	os.Exit(code)
}

// setUp makes two projects of one name in two domains, a member, and five instances
// of the first project: one that no host could take.
func (b *realCloud) setUp() {
	b.identity = strings.TrimSuffix(strings.TrimRight(os.Getenv("OS_AUTH_URL"), "/"), "/v3")
	b.password = os.Getenv("OS_PASSWORD")
	const project, member = "webshop", "shopkeeper"
	b.token = b.login(os.Getenv("OS_USERNAME"), os.Getenv("OS_PROJECT_NAME"))
	service := b.find("/v3/services?type=compute", "services")
	endpoints := b.call("GET", b.identity+"/v3/endpoints?interface=public&service_id="+service, nil)["endpoints"].([]any)
	endpoint := endpoints[0].(map[string]any)["url"].(string)
	b.compute = strings.TrimSuffix(strings.TrimRight(endpoint, "/"), "/v2.1")
	b.catalogued = b.compute

	id := b.create("projects", map[string]any{"project": map[string]any{"name": project, "domain_id": "default"}})
	domain := b.create("domains", map[string]any{"domain": map[string]any{"name": "partners"}})
	b.undo = append(b.undo, func() {
		b.call("PATCH", b.identity+"/v3/domains/"+domain, map[string]any{"domain": map[string]any{"enabled": false}})
	})
	twin := b.create("projects", map[string]any{"project": map[string]any{"name": project, "domain_id": domain}})
	user := b.create("users", map[string]any{"user": map[string]any{"name": member, "domain_id": "default", "password": b.password}})
	role := b.find("/v3/roles?name=member", "roles")
	b.call("PUT", fmt.Sprintf("%s/v3/projects/%s/users/%s/roles/%s", b.identity, id, user, role), nil)

	b.adminVars = map[string]string{
		"admin": os.Getenv("OS_USERNAME"), "admin-project": os.Getenv("OS_PROJECT_NAME"),
		"admin-project-id": b.find("/v3/projects?name="+os.Getenv("OS_PROJECT_NAME"), "projects"),
		"member":           member, "project-name": project, "project": id, "twin": twin, "domain": domain, "domain-name": "partners",
	}
	host := b.call("GET", b.compute+"/v2.1/os-services?binary=nova-compute", nil)["services"].([]any)[0].(map[string]any)["host"].(string)
	b.hidden = []string{`"` + host + `"`, `"compute1"`, "host=" + host, "host=compute1"}
	b.adminVars["host"] = host
	admin := b.find("/v3/users?name="+os.Getenv("OS_USERNAME"), "users")
	credentials := b.identity + "/v3/users/" + admin + "/application_credentials"
	wanted := map[string]any{"application_credential": map[string]any{"name": "os-rescue"}}
	made := b.call("POST", credentials, wanted)["application_credential"].(map[string]any)
	b.adminVars["credential"], b.credentialSecret = made["id"].(string), made["secret"].(string)
	b.undo = append(b.undo, func() { b.call("DELETE", credentials+"/"+b.adminVars["credential"], nil) })
	b.hidden = append(b.hidden, b.credentialSecret, scrubbed, b.token, "given-token")

	memberToken := b.login(member, project)
	image := os.Getenv("RECORD_IMAGE")
	flavor := os.Getenv("RECORD_FLAVOR")
	hugeFlavor := map[string]any{"name": "huge", "ram": 128, "vcpus": 1, "disk": 1 << 20}
	huge := b.createAt(b.compute+"/v2.1/flavors", map[string]any{"flavor": hugeFlavor})
	for _, name := range []string{"web1", "web2", "web3", "web4", "big"} {
		f := flavor
		if name == "big" {
			f = huge
		}
		adminToken := b.token
		b.token = memberToken
		answer := b.call("POST", b.compute+"/v2.1/servers", map[string]any{"server": map[string]any{
			"name": name, "imageRef": image, "flavorRef": f, "networks": "none"}})
		b.token = adminToken
		server := answer["server"].(map[string]any)["id"].(string)
		b.adminVars[name] = server
		b.undo = append(b.undo, func() {
			b.act(server, map[string]any{"unlock": nil})
			b.call("DELETE", b.compute+"/v2.1/servers/"+server, nil)
			b.await(server, "")
		})
		if name == "big" {
			b.await(server, "ERROR")
		} else {
			b.await(server, "ACTIVE")
		}
	}
}

func (b *realCloud) login(user, project string) string {
	domain := map[string]any{"id": "default"}
	resp := b.send("POST", b.identity+"/v3/auth/tokens", map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{
			"user": map[string]any{"name": user, "password": b.password, "domain": domain}}},
		"scope": map[string]any{"project": map[string]any{"name": project, "domain": domain}}}})
	resp.Body.Close()
	return resp.Header.Get("X-Subject-Token")
}

func (b *realCloud) create(what string, body map[string]any) string {
	return b.createAt(b.identity+"/v3/"+what, body)
}

func (b *realCloud) createAt(url string, body map[string]any) string {
	for _, object := range b.call("POST", url, body) {
		id := object.(map[string]any)["id"].(string)
		b.undo = append(b.undo, func() { b.call("DELETE", url+"/"+id, nil) })
		return id
	}
	panic("nothing created at " + url)
}

func (b *realCloud) find(path, list string) string {
	return b.call("GET", b.identity+path, nil)[list].([]any)[0].(map[string]any)["id"].(string)
}

func (b *realCloud) act(server string, action map[string]any) {
	b.call("POST", b.compute+"/v2.1/servers/"+server+"/action", action)
}

// breakCell takes the database of the instance's cell away for a test.
func (b *realCloud) breakCell(t *testing.T, server string) {
	t.Helper()
	program := os.Getenv("RECORD_CELL")
	if out, err := exec.Command(program, "down", server).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
	b.compute = os.Getenv("RECORD_COMPUTE")
	t.Cleanup(func() {
		b.compute = b.catalogued
		if out, err := exec.Command(program, "up", server).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", program, err, out)
		}
	})
}

// await waits for a status; the empty one is that of a deleted instance.
func (b *realCloud) await(server, status string) {
	for range 240 {
		resp := b.send("GET", b.compute+"/v2.1/servers/"+server, nil)
		var answer struct{ Server struct{ Status string } }
		json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if answer.Server.Status == status {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	panic(server + " did not become " + status)
}

func (b *realCloud) call(method, url string, body map[string]any) map[string]any {
	resp := b.send(method, url, body)
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		fmt.Fprintf(os.Stderr, "bed: %s %s: %d %s\n", method, url, resp.StatusCode, text)
	}
	var answer map[string]any
	json.Unmarshal(text, &answer)
	return answer
}

func (b *realCloud) send(method, url string, body map[string]any) *http.Response {
	var text io.Reader
	if body != nil {
		j, _ := json.Marshal(body)
		text = bytes.NewReader(j)
	}
	req, err := http.NewRequest(method, url, text)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Auth-Token", b.token)
	req.Header.Set("X-OpenStack-Nova-API-Version", "2.73")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	return resp
}

// recordTo passes requests on to the bed and writes what was said when the test ends.
func recordTo(t *testing.T, file string) *cloud {
	t.Helper()
	if bed.recorded[file] {
		t.Skip("another test records it")
	}
	bed.recorded[file] = true
	var mu sync.Mutex
	var exchanges []exchange
	names := map[string]string{} // real token -> token-N
	var self string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := readRequest(r)
		target := bed.compute + strings.TrimPrefix(r.URL.RequestURI(), "/compute")
		if rest, ok := strings.CutPrefix(r.URL.RequestURI(), "/identity"); ok {
			target = bed.identity + rest
		}
		out, _ := http.NewRequest(r.Method, target, bytes.NewReader(said.RequestBody))
		out.Header = r.Header.Clone()
		out.Header.Del("Accept-Encoding")
		resp, err := http.DefaultClient.Do(out)
		if err != nil {
			t.Errorf("the bed: %v", err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		urls := strings.NewReplacer(
			bed.catalogued, self+"/compute",
			bed.compute, self+"/compute",
			bed.identity, self+"/identity",
		)
		body = []byte(urls.Replace(string(body)))

		mu.Lock()
		defer mu.Unlock()
		hide := func(text string) string {
			for real, name := range names {
				text = strings.ReplaceAll(text, real, name)
			}
			return strings.NewReplacer(append([]string{self, placeholder}, bed.hidden...)...).Replace(text)
		}
		headers := map[string]string{}
		for _, name := range []string{"Content-Type", "X-Subject-Token", "X-Openstack-Request-Id", "X-Compute-Request-Id", "Retry-After"} {
			v := resp.Header.Get(name)
			if v == "" {
				continue
			}
			w.Header().Set(name, v)
			if name == "X-Subject-Token" && names[v] == "" && v != bed.token {
				names[v] = fmt.Sprintf("token-%d", len(names)+1)
			}
			headers[name] = hide(v)
		}
		w.WriteHeader(resp.StatusCode)
		w.Write(body)
		said.Token = hide(said.Token)
		said.Path = hide(said.Path)
		said.RequestBody = json.RawMessage(strings.ReplaceAll(hide(string(said.RequestBody)),
			`"password":"`+bed.password+`"`, `"password":"`+scrubbed+`"`))
		said.Status, said.Headers, said.Body = resp.StatusCode, headers, json.RawMessage(hide(string(body)))
		if len(body) > 0 && !json.Valid(body) {
			said.Body, _ = json.Marshal(hide(string(body)))
		}
		exchanges = append(exchanges, said)
	})
	c := serve(t, handler, bed.adminVars)
	self = c.URL
	c.password = bed.password
	t.Cleanup(func() {
		vars := map[string]string{}
		for k, v := range c.Vars {
			vars[k] = v
			if k == "host" {
				vars[k] = "compute1"
			}
		}
		// Of a state that was asked for again and again, one answer is enough.
		last := map[string]exchange{}
		exchanges = slices.DeleteFunc(exchanges, func(e exchange) bool {
			before := last[e.key()]
			last[e.key()] = e
			return before.Status == e.Status && bytes.Equal(before.Body, e.Body)
		})
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", " ")
		r := recording{
			Made:      "OpenStack on one node, recorded " + time.Now().UTC().Format(time.DateOnly),
			Vars:      vars,
			Exchanges: exchanges,
		}
		if err := enc.Encode(r); err != nil {
			t.Error(err)
		}
		for real := range names {
			if strings.Contains(b.String(), real) {
				t.Fatal("a token is in the recording")
			}
		}
		os.MkdirAll(filepath.Dir(file), 0o755)
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Error(err)
		}
	})
	return c
}
