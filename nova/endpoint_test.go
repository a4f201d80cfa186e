package nova

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/os-rescue/os-rescue/recover"
)

func TestAnEndpointIsCutAfterItsVersion(t *testing.T) {
	for endpoint, want := range map[string]struct {
		document  string
		versioned bool
	}{
		"http://h:8774/v2.1/":               {"http://h:8774/v2.1/", true},
		"http://h:8774/v2.1":                {"http://h:8774/v2.1/", true},
		"https://h/compute/v2.1/0123abcd/":  {"https://h/compute/v2.1/", true},
		"http://h:8774/v2/0123abcd":         {"http://h:8774/v2/", true},
		"http://h:8774/":                    {"http://h:8774/", false},
		"https://h/compute":                 {"https://h/compute/", false},
		"https://h/v2.1/compute/v2.1/a%2Fb": {"https://h/v2.1/compute/v2.1/", true},
	} {
		document, versioned, err := versionDocument(endpoint)
		if err != nil || document != want.document || versioned != want.versioned {
			t.Errorf("%s: %s, %v, %v; want %+v", endpoint, document, versioned, err, want)
		}
	}
	for _, bad := range []string{"", "compute", "http://%zz/"} {
		if document, _, err := versionDocument(bad); err == nil {
			t.Errorf("%q has the document %q", bad, document)
		}
	}
}

// oldNova is a Nova of one version document that keeps what it is asked.
func oldNova(t *testing.T, document string) (*Client, *[]string) {
	t.Helper()
	var asked []string
	cloud := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		version := r.Header.Get("X-OpenStack-Nova-API-Version")
		asked = append(asked, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", version, r.Method, r.URL.RequestURI(), body)))
		switch {
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusAccepted)
		case strings.Contains(r.URL.Path, "/servers/"):
			fmt.Fprint(w, `{"servers": []}`)
		default:
			fmt.Fprint(w, document)
		}
	}), nil)
	opts := quick()
	opts.setDefaults()
	provider := &gophercloud.ProviderClient{}
	compute := &gophercloud.ServiceClient{ProviderClient: provider, Type: "compute", Endpoint: cloud.URL + "/v2.1/"}
	return newClient(&session{opts: opts, provider: provider, compute: compute}), &asked
}

func TestTheNewestMicroversionThatBothSidesKnowIsUsed(t *testing.T) {
	for name, tt := range map[string]struct {
		document string
		want     string
		words    []string
	}{
		"newer":   {document: `{"version": {"id": "v2.1", "version": "2.96", "min_version": "2.1"}}`, want: "2.73"},
		"train":   {document: `{"version": {"id": "v2.1", "version": "2.79", "min_version": "2.1"}}`, want: "2.73"},
		"queens":  {document: `{"version": {"id": "v2.1", "version": "2.60", "min_version": "2.1"}}`, want: "2.60"},
		"mitaka":  {document: `{"version": {"id": "v2.1", "version": "2.25", "min_version": "2.1"}}`, want: "2.25"},
		"liberty": {document: `{"version": {"id": "v2.1", "version": "2.8", "min_version": "2.1"}}`, words: []string{"2.8", "2.9", "Mitaka"}},
		"legacy":  {document: `{"version": {"id": "v2.0", "version": "", "min_version": ""}}`, words: []string{"v2.0", "2.9"}},
		"far future": {
			document: `{"version": {"id": "v2.1", "version": "2.200", "min_version": "2.100"}}`,
			words:    []string{"2.100", "newer os-rescue"},
		},
		"no document": {document: `{}`, words: []string{"2.9"}},
		"odd":         {document: `{"version": {"id": "v2.1", "version": "two", "min_version": "2.1"}}`, words: []string{"two"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := oldNova(t, tt.document)
			err := c.negotiate(t.Context())
			if tt.want != "" {
				if err != nil || c.compute.Microversion != tt.want {
					t.Errorf("%s, %v; want %s", c.compute.Microversion, err, tt.want)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			for _, word := range tt.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			if strings.Contains(err.Error(), "Mitaka") != errors.Is(err, ErrTooOld) {
				t.Errorf("ErrTooOld: %v", err)
			}
		})
	}
	c, _ := oldNova(t, `{"versions": [
		{"id": "v2.0", "version": "", "min_version": ""},
		{"id": "v2.1", "version": "2.90", "min_version": "2.1"}
	]}`)
	c.compute.Endpoint = strings.TrimSuffix(c.compute.Endpoint, "v2.1/")
	if err := c.negotiate(t.Context()); err != nil || !strings.HasSuffix(c.compute.Endpoint, "/v2.1/") {
		t.Errorf("an endpoint without a version: %s, %v", c.compute.Endpoint, err)
	}
}

func TestAnOlderNovaIsNotAskedForWhatItDoesNotKnow(t *testing.T) {
	c, asked := oldNova(t, `{"version": {"id": "v2.1", "version": "2.25", "min_version": "2.1"}}`)
	if err := c.negotiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	*asked = nil
	if err := c.Lock(t.Context(), other, "why"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Servers(t.Context(), recover.ServerFilter{ProjectID: "p"}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`2.25 POST /v2.1/servers/` + other + `/action {"lock":null}`,
		`2.25 GET /v2.1/servers/detail?all_tenants=1&project_id=p`,
	}
	if !slices.Equal(*asked, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(*asked, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheReasonOfALockIsCutToWhatNovaTakes(t *testing.T) {
	c, asked := oldNova(t, `{"version": {"id": "v2.1", "version": "2.73", "min_version": "2.1"}}`)
	if err := c.negotiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Lock(t.Context(), other, strings.Repeat("ö", 300)); err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut((*asked)[1], "/action ")
	var sent struct {
		Lock struct {
			Reason string `json:"locked_reason"`
		} `json:"lock"`
	}
	if json.Unmarshal([]byte(body), &sent) != nil || sent.Lock.Reason != strings.Repeat("ö", 255) {
		t.Errorf("sent %s", body)
	}
}

func TestSeveralRegionsAreNotGuessedAmong(t *testing.T) {
	if bed != nil {
		t.Skip("the bed has one region")
	}
	cloud := openCloud(t, "sign-in")
	inner := *cloud.handler
	*cloud.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(&editing{ResponseWriter: w, edit: func(body string) string {
			var answer struct {
				Token map[string]any `json:"token"`
			}
			if json.Unmarshal([]byte(body), &answer) != nil || answer.Token["catalog"] == nil {
				return body
			}
			for _, service := range answer.Token["catalog"].([]any) {
				service := service.(map[string]any)
				for _, e := range service["endpoints"].([]any) {
					south := maps.Clone(e.(map[string]any))
					south["region"], south["region_id"] = "South", "South"
					service["endpoints"] = append(service["endpoints"].([]any), south)
				}
			}
			edited, _ := json.Marshal(answer)
			return string(edited)
		}}, r)
	})
	cloud.use(t, cloud.Vars["admin"], cloud.Vars["admin-project"])
	_, err := Open(t.Context(), quick())
	mention(t, err, recover.ErrCredentials, "RegionOne", "South", "OS_REGION_NAME")
	t.Setenv("OS_REGION_NAME", "RegionOne")
	if _, err := Open(t.Context(), quick()); err != nil {
		t.Error(err)
	}
}

type editing struct {
	http.ResponseWriter
	edit func(string) string
}

func (e *editing) Write(p []byte) (int, error) {
	io.WriteString(e.ResponseWriter, e.edit(string(p)))
	return len(p), nil
}
