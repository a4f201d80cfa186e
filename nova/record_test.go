package nova

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover"
)

const whole = `{"id": "11111111-1111-4111-8111-111111111111", "name": "n", "tenant_id": "p", "status": "ACTIVE", "locked": false,
 "OS-EXT-SRV-ATTR:host": "h", "OS-EXT-SRV-ATTR:instance_name": "instance-1", "OS-EXT-STS:vm_state": "active",
 "OS-EXT-STS:task_state": null, "OS-EXT-STS:power_state": 1}`

func TestWhatARecordLeavesOutIsNotTakenForEmpty(t *testing.T) {
	for name, tt := range map[string]struct {
		old, new string
		err      error
		words    []string
	}{
		"whole":       {},
		"no host yet": {old: `"h"`, new: `null`},
		"hidden host": {
			old:   `"OS-EXT-SRV-ATTR:host": "h",`,
			err:   recover.ErrForbidden,
			words: []string{"os-extended-server-attributes", "admin"},
		},
		"hidden domain": {
			old:   `"OS-EXT-SRV-ATTR:instance_name": "instance-1",`,
			err:   recover.ErrForbidden,
			words: []string{"os-extended-server-attributes"},
		},
		"hidden state":       {old: `"OS-EXT-STS:vm_state": "active",`, err: recover.ErrForbidden, words: []string{"os-extended-status"}},
		"no lock":            {old: `"locked": false,`, words: []string{"locked"}},
		"no ID":              {old: `"id": "11111111-1111-4111-8111-111111111111",`, words: []string{"ID"}},
		"an odd power state": {old: `state": 1`, new: `state": "up"`, words: []string{"can't be read"}},
		"not an object":      {old: whole, new: `[]`, words: []string{"can't be read"}},
		"nothing":            {old: whole, words: []string{"no record"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parseServer(json.RawMessage(strings.Replace(whole, tt.old, tt.new, 1)))
			if tt.words == nil {
				if err != nil || s.UUID == "" || s.Unknown {
					t.Errorf("%+v, %v", s, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted: %+v", s)
			}
			if tt.err != nil {
				mention(t, err, tt.err, tt.words...)
			}
			for _, word := range tt.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
		})
	}
	// A vm_state that Nova has no status for is not a cell that is down.
	s, err := parseServer(json.RawMessage(strings.Replace(whole, "ACTIVE", "UNKNOWN", 1)))
	if err != nil || s.Unknown || s.Host != "h" {
		t.Errorf("a whole record with the status UNKNOWN: %+v, %v", s, err)
	}
}

func TestAListWhoseMarkerIsGoneStartsAgainAndOneThatGoesInACircleEnds(t *testing.T) {
	record := func(i int) string {
		return strings.Replace(whole, "11111111-1111", fmt.Sprintf("11111111-%04d", i), 1)
	}
	calls, gone := 0, true
	c, _ := oldNova(t, `{"version": {"id": "v2.1", "version": "2.60", "min_version": "2.1"}}`)
	if err := c.negotiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := func(marker string) string {
		return fmt.Sprintf(`"servers_links": [{"rel": "next", "href": "http://wrong.test/v2.1/servers/detail?marker=%s"}]`, marker)
	}
	cloud := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		switch marker := r.URL.Query().Get("marker"); {
		case marker == "":
			fmt.Fprintf(w, `{"servers": [%s, %s], %s}`, record(1), record(2), next("m1"))
		case marker == "m1" && gone:
			gone = false
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"badRequest": {"code": 400, "message": "marker [m1] not found"}}`)
		case marker == "m1":
			fmt.Fprintf(w, `{"servers": [%s, %s], %s}`, record(2), record(3), next("m2"))
		case marker == "m2":
			fmt.Fprintf(w, `{"servers": [%s]}`, record(4))
		case marker == "c":
			fmt.Fprintf(w, `{"servers": [], %s}`, next("c"))
		}
	}), nil)
	c.compute.Endpoint = cloud.URL + "/v2.1/"
	list, err := c.Servers(t.Context(), recover.ServerFilter{})
	if err != nil || len(list) != 4 || calls != 5 {
		t.Errorf("%d instances in %d calls, %v; want 4, each once, in 5", len(list), calls, err)
	}
	// Filters that Nova dropped hold all the same.
	if list, err = c.Servers(t.Context(), recover.ServerFilter{ProjectID: "another"}); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if list, err = c.Servers(t.Context(), recover.ServerFilter{Hosts: []string{"another"}}); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	_, err = c.listOnce(t.Context(), map[string][]string{"marker": {"c"}})
	if !errors.Is(err, recover.ErrCloudAnswer) || !strings.Contains(err.Error(), "repeat") {
		t.Errorf("pages that repeat: %v", err)
	}
}

func TestNovasMessageIsOneShortLine(t *testing.T) {
	for body, want := range map[string]string{
		`{"conflictingRequest": {"code": 409, "message": "Instance is locked"}}`: "Instance is locked",
		`{"computeFault": {"message": "one\n two"}}`:                             "one two",
		`{"error": {"code": 401, "message": "no", "title": "Unauthorized"}}`:     "no",
		`<html>`: "", ``: "", `{}`: "", `[]`: "", `{"a": 1}`: "", `{"a": {"message": 1}}`: "",
	} {
		if _, got := serviceMessage([]byte(body)); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	if _, got := serviceMessage([]byte(`{"a": {"message": "` + strings.Repeat("ö", 1000) + `"}}`)); len(got) > 610 {
		t.Errorf("%d bytes", len(got))
	}
}

func FuzzRecordsOfInstances(f *testing.F) {
	f.Add([]byte(`{"servers": [` + whole + `], "servers_links": [{"rel": "next", "href": "http://h/?marker=m"}]}`))
	f.Add([]byte(`{"servers": [` + partial[len(`{"server": `):len(partial)-1] + `]}`))
	f.Add([]byte(`{"servers": [null]}`))
	files, _ := filepath.Glob("testdata/*.json")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var r recording
		if err := json.Unmarshal(text, &r); err != nil {
			f.Fatal(err)
		}
		for _, e := range r.Exchanges {
			if strings.Contains(e.Path, "/servers") {
				f.Add([]byte(e.Body))
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		page, err := parsePage(body)
		if err != nil {
			return
		}
		for _, s := range page.servers {
			if uuid.Validate(s.UUID) != nil {
				t.Errorf("an instance %q", s.UUID)
			}
			if s.Unknown && s != (recover.Server{UUID: s.UUID, ProjectID: s.ProjectID, Status: "UNKNOWN", Unknown: true}) {
				t.Errorf("something is known of an unknown one: %+v", s)
			}
		}
	})
}
