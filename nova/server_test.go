package nova

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestEveryPageOfAListIsRead(t *testing.T) {
	cloud := openCloud(t, "list-pages")
	opts := quick()
	opts.pageSize = 2
	c := cloud.open(t, cloud.Vars["admin"], cloud.Vars["admin-project"], opts)
	before := c.Calls()
	servers, err := c.Servers(t.Context(), recover.ServerFilter{ProjectID: cloud.Vars["project"]})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range servers {
		got = append(got, s.Name)
		if s.ProjectID != cloud.Vars["project"] {
			t.Errorf("%s is of project %s", s.Name, s.ProjectID)
		}
	}
	slices.Sort(got)
	if want := []string{"big", "web1", "web2", "web3", "web4"}; !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	// Three pages, and one to see instances of cells that are down.
	if n := c.Calls() - before; n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
}

func TestAListIsFilteredByHostAndHasEveryInstanceWithoutAFilter(t *testing.T) {
	cloud := openCloud(t, "list-filters")
	c := cloud.admin(t)
	all, err := c.Servers(t.Context(), recover.ServerFilter{})
	if err != nil {
		t.Fatal(err)
	}
	here, err := c.Servers(t.Context(), recover.ServerFilter{Hosts: []string{cloud.Vars["host"]}, ProjectID: cloud.Vars["project"]})
	if err != nil {
		t.Fatal(err)
	}
	has := func(list []recover.Server, name string) bool {
		return slices.ContainsFunc(list, func(s recover.Server) bool { return s.UUID == cloud.Vars[name] })
	}
	for _, name := range []string{"web1", "web2", "web3", "web4"} {
		if !has(all, name) || !has(here, name) {
			t.Errorf("%s: in the whole list %v, in the host's %v", name, has(all, name), has(here, name))
		}
	}
	if !has(all, "big") || has(here, "big") {
		t.Errorf("the instance without a host: in the whole list %v, in the host's %v", has(all, "big"), has(here, "big"))
	}
	nowhere, err := c.Servers(t.Context(), recover.ServerFilter{Hosts: []string{"elsewhere"}})
	if err != nil || len(nowhere) != 0 {
		t.Errorf("on no host: %v, %v", nowhere, err)
	}
}

func TestARecordHasPlaceStateLockAndFault(t *testing.T) {
	cloud := openCloud(t, "records")
	c := cloud.admin(t)
	s, err := c.Server(t.Context(), cloud.Vars["web1"])
	if err != nil {
		t.Fatal(err)
	}
	if s.Domain == "" {
		t.Error("no libvirt name")
	}
	want := recover.Server{
		UUID: cloud.Vars["web1"], Name: "web1", ProjectID: cloud.Vars["project"], Host: cloud.Vars["host"], Domain: s.Domain,
		Status: "ACTIVE", VMState: recover.VMActive, PowerState: 1,
	}
	if s != want {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}

	if err := c.Lock(t.Context(), want.UUID, "disk is being brought back"); err != nil {
		t.Fatal(err)
	}
	want.Locked, want.LockedReason = true, "disk is being brought back"
	if s, err = c.Server(t.Context(), want.UUID); err != nil || s != want {
		t.Errorf("locked:\ngot  %+v, %v\nwant %+v", s, err, want)
	}
	for range 2 { // the second time it is not locked
		if err := c.Unlock(t.Context(), want.UUID); err != nil {
			t.Fatal(err)
		}
	}

	s, err = c.Server(t.Context(), cloud.Vars["big"])
	if err != nil {
		t.Fatal(err)
	}
	noHost := strings.HasPrefix(s.Fault, "No valid host was found.")
	if s.Status != "ERROR" || s.VMState != recover.VMError || s.Host != "" || s.Unknown || !noHost {
		t.Errorf("the one in ERROR: %+v", s)
	}
}

func TestAnInstanceThatNovaDoesNotKnow(t *testing.T) {
	const nobody = "00000000-0000-4000-8000-000000000000"
	cloud := openCloud(t, "no-instance")
	c := cloud.admin(t)
	_, err := c.Server(t.Context(), nobody)
	mention(t, err, recover.ErrNoInstance, nobody, "could not be found")
	mention(t, c.Lock(t.Context(), nobody, "why"), recover.ErrNoInstance)
	mention(t, c.Unlock(t.Context(), nobody), recover.ErrNoInstance)
	mention(t, c.HardReboot(t.Context(), nobody), recover.ErrNoInstance)
	mention(t, c.Pause(t.Context(), nobody), recover.ErrNoInstance)
	_, err = c.LastReboot(t.Context(), nobody)
	mention(t, err, recover.ErrNoInstance)
	if _, err = c.Server(t.Context(), "not-an-id"); err == nil {
		t.Error("an instance that is called not-an-id")
	}
}

func TestAMemberIsToldWhichPolicyAndRoleAreMissing(t *testing.T) {
	cloud := openCloud(t, "member")
	c := cloud.member(t)
	_, err := c.Servers(t.Context(), recover.ServerFilter{ProjectID: cloud.Vars["project"]})
	mention(t, err, recover.ErrForbidden, "os_compute_api:servers:detail:get_all_tenants", "role admin")

	_, err = c.Server(t.Context(), cloud.Vars["web1"])
	mention(t, err, recover.ErrForbidden, "os_compute_api:os-extended-server-attributes", "role admin", cloud.Vars["web1"])

	// Another project's instance is a 404 to a member, and not a deleted instance.
	other := cloud.open(t, cloud.Vars["member"], cloud.Vars["project-name"], quick())
	_, err = other.Server(t.Context(), "00000000-0000-4000-8000-000000000000")
	mention(t, err, recover.ErrForbidden, "context_is_admin", "another project")
}

func TestInstancesOfACellThatIsDownAreUnknownAndNotGone(t *testing.T) {
	cloud := openCloud(t, "cell-down")
	web4 := cloud.Vars["web4"]
	if bed != nil {
		bed.breakCell(t, web4)
	}
	c := cloud.admin(t)
	want := recover.Server{UUID: web4, ProjectID: cloud.Vars["project"], Status: "UNKNOWN", Unknown: true}
	if s, err := c.Server(t.Context(), web4); err != nil || s != want {
		t.Errorf("Server:\ngot  %+v, %v\nwant %+v", s, err, want)
	}
	for name, filter := range map[string]recover.ServerFilter{
		"all":       {},
		"a project": {ProjectID: cloud.Vars["project"]},
		"a host":    {Hosts: []string{cloud.Vars["host"]}},
	} {
		list, err := c.Servers(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		isUnknown := func(s recover.Server) bool { return s.Unknown }
		if len(list) < 4 || list[len(list)-1] != want || slices.ContainsFunc(list[:len(list)-1], isUnknown) {
			t.Errorf("the list of %s: %+v, want the unknown one at its end", name, list)
		}
	}
	if list, err := c.Servers(t.Context(), recover.ServerFilter{ProjectID: cloud.Vars["admin-project-id"]}); err != nil || len(list) != 0 {
		t.Errorf("another project's list: %+v, %v", list, err)
	}
	// A host of the cell: nobody knows how its nova-compute is.
	_, err := c.ComputeService(t.Context(), "compute2")
	mention(t, err, recover.ErrCloudUnavailable, "cell's database")

	c.opts.RetryFor = 1 // ns
	mention(t, c.Lock(t.Context(), web4, "why"), recover.ErrCloudUnavailable)
	mention(t, c.HardReboot(t.Context(), web4), recover.ErrCloudUnavailable)

	// Below 2.69 Nova can't show it, and says so with a 500.
	c.minor, c.compute.Microversion = 60, "2.60"
	_, err = c.Server(t.Context(), web4)
	mention(t, err, recover.ErrCloudUnavailable, "HTTP 500")
	list, err := c.Servers(t.Context(), recover.ServerFilter{ProjectID: cloud.Vars["project"]})
	if err != nil || slices.ContainsFunc(list, func(s recover.Server) bool { return s.UUID == web4 }) {
		t.Errorf("below 2.69: %+v, %v", list, err)
	}
}

func TestInstancesOfSeveralHostsAreListedWithOneLookAtTheCellsThatAreDown(t *testing.T) {
	c, _ := oldNova(t, `{"version": {"id": "v2.1", "version": "2.96", "min_version": "2.1"}}`)
	if err := c.negotiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	record := func(i int, host string) string {
		return strings.NewReplacer("11111111-1111", fmt.Sprintf("11111111-%04d", i), `"h"`, strconv.Quote(host)).Replace(whole)
	}
	var asked []string
	cloud := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.URL.Query().Get("host")
		asked = append(asked, host)
		switch host {
		case "a":
			fmt.Fprintf(w, `{"servers": [%s, %s]}`, record(1, "a"), record(2, "a"))
		case "b":
			fmt.Fprintf(w, `{"servers": [%s]}`, record(3, "b"))
		default:
			const unknown = `{"id": "99999999-1111-4111-8111-111111111111", "tenant_id": "p", "status": "UNKNOWN"}`
			fmt.Fprintf(w, `{"servers": [%s, %s, %s]}`, record(1, "a"), record(4, "c"), unknown)
		}
	}), nil)
	c.compute.Endpoint = cloud.URL + "/v2.1/"
	list, err := c.Servers(t.Context(), recover.ServerFilter{Hosts: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, s := range list {
		hosts = append(hosts, s.Host)
	}
	if !slices.Equal(asked, []string{"a", "b", ""}) || !slices.Equal(hosts, []string{"a", "a", "b", ""}) || !list[3].Unknown {
		t.Errorf("asked for the hosts %q, got instances of %q", asked, hosts)
	}
}
