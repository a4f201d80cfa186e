package nova

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/os-rescue/os-rescue/recover"
)

// servers read Nova's records of instances.
type servers struct{ *session }

// Server returns one instance as it is now; with Unknown set when its cell does not
// answer (2.69+).
//
// Errors: recover.ErrNoInstance only when Nova itself says so to an admin;
// recover.ErrForbidden when Nova omits the host
// (os_compute_api:os-extended-server-attributes).
func (c servers) Server(ctx context.Context, uuid string) (recover.Server, error) {
	var answer struct {
		Server json.RawMessage `json:"server"`
	}
	r := c.instance("reading", uuid)
	r.method, r.into, r.policy = http.MethodGet, &answer, policyShow
	if err := c.send(ctx, c.compute, r); err != nil {
		return recover.Server{}, err
	}
	server, err := parseServer(answer.Server)
	if err != nil {
		return recover.Server{}, misread(r, err)
	}
	if server.UUID != uuid {
		return recover.Server{}, fmt.Errorf("%s: %w: Nova answered with instance %s", r.doing, recover.ErrCloudAnswer, server.UUID)
	}
	return server, nil
}

// Servers returns the instances of all projects that match the filter, from all
// pages, without deleted ones. Instances of cells that are down come last, with
// Unknown set (2.69+, and see the package comment). All of these match a host filter,
// because their host is not known.
//
// recover.ErrForbidden without os_compute_api:servers:detail:get_all_tenants, or when
// Nova omits the host.
func (c servers) Servers(ctx context.Context, filter recover.ServerFilter) ([]recover.Server, error) {
	query := url.Values{}
	if filter.ProjectID != "" {
		query.Set("project_id", filter.ProjectID)
	}
	hosts := filter.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	var servers []recover.Server
	for _, host := range hosts { // Nova's filter takes only one
		if host != "" {
			query.Set("host", host)
		}
		list, err := c.list(ctx, query)
		if err != nil {
			return nil, err
		}
		servers = append(servers, list...)
	}
	// In a list with a filter or a page size Nova omits cells that are down, so one
	// more page is read for all hosts. Known instances in it count too, because a cell
	// may have come back between the two lists.
	if c.minor >= minorDownCell && (len(query) > 0 || c.opts.pageSize > 0) {
		page, err := c.page(ctx, url.Values{"all_tenants": {"1"}})
		if err != nil {
			return nil, err
		}
		servers = append(servers, page.servers...)
	}
	// Nova drops filters silently for a user without the policy allow_all_filters.
	var matching, unknown []recover.Server
	seen := map[string]bool{}
	for _, s := range servers {
		switch {
		case seen[s.UUID], filter.ProjectID != "" && s.ProjectID != filter.ProjectID:
		case s.Unknown:
			seen[s.UUID] = true
			unknown = append(unknown, s)
		case len(filter.Hosts) == 0 || slices.Contains(filter.Hosts, s.Host):
			seen[s.UUID] = true
			matching = append(matching, s)
		}
	}
	return append(matching, unknown...), nil
}

// Deleted is true when Nova lists the instance among the deleted ones. That is
// positive evidence; a 404 may mean that the user may not see the instance. Nova does
// not list deleted instances to a user who is not its administrator
// (nova/api/openstack/compute/servers.py, _get_servers and remove_invalid_options),
// nor those of a cell that is down, nor archived ones.
//
// recover.ErrForbidden without os_compute_api:servers:detail:get_all_tenants.
func (c servers) Deleted(ctx context.Context, uuid string) (bool, error) {
	page, err := c.page(ctx, url.Values{"all_tenants": {"1"}, "deleted": {"True"}, "uuid": {uuid}})
	if err != nil {
		return false, err
	}
	for _, s := range page.servers {
		// Nova drops filters silently for a user without the policy allow_all_filters.
		if s.UUID == uuid && s.Status == "DELETED" {
			return true, nil
		}
	}
	return false, nil
}

// errMarkerGone: the instance after which the next page starts was deleted.
var errMarkerGone = errors.New("the list's marker is gone")

// list reads every page. It starts again when the last instance of a page is deleted
// before the next page is requested.
func (c servers) list(ctx context.Context, query url.Values) ([]recover.Server, error) {
	const attempts = 3
	var servers []recover.Server
	var err error
	for range attempts {
		servers, err = c.listOnce(ctx, query)
		if !errors.Is(err, errMarkerGone) {
			return servers, err
		}
	}
	return nil, err
}

func (c servers) listOnce(ctx context.Context, filter url.Values) ([]recover.Server, error) {
	query := url.Values{"all_tenants": {"1"}}
	for key, values := range filter {
		query[key] = values
	}
	if c.opts.pageSize > 0 {
		query.Set("limit", strconv.Itoa(c.opts.pageSize))
	}
	var servers []recover.Server
	listed := map[string]bool{}
	size := 0
	for range maxPages {
		page, err := c.page(ctx, query)
		var f *failure
		if errors.As(err, &f) && f.status == http.StatusBadRequest && query.Has("marker") {
			return nil, fmt.Errorf("%w: %w", errMarkerGone, err)
		}
		if err != nil {
			return nil, err
		}
		servers = append(servers, page.servers...)
		if page.next == "" {
			return servers, nil
		}
		before := len(listed)
		for _, s := range page.servers {
			listed[s.UUID] = true
		}
		if len(listed) == before {
			return nil, fmt.Errorf("listing the instances: %w: its pages repeat at %s", recover.ErrCloudAnswer, page.next)
		}
		if size += page.size; size > c.opts.listSize {
			break
		}
		query.Set("marker", page.next)
	}
	return nil, fmt.Errorf("listing the instances: %w: the list has no end: %d instances so far", recover.ErrCloudAnswer, len(listed))
}

// What one list may have, pages and bytes: several times what a large cloud has.
const (
	maxPages = 10_000
	maxList  = 1 << 30
)

type serverPage struct {
	servers []recover.Server
	next    string // the marker of the next page; empty on the last
	size    int    // of the answer, in bytes
}

func (c servers) page(ctx context.Context, query url.Values) (serverPage, error) {
	var answer json.RawMessage
	r := request{
		doing:  "listing the instances of all projects",
		method: http.MethodGet,
		url:    c.compute.ServiceURL("servers", "detail") + "?" + query.Encode(),
		into:   &answer,
		policy: policyAllTenants,
	}
	if err := c.send(ctx, c.compute, r); err != nil {
		return serverPage{}, err
	}
	page, err := parsePage(answer)
	if err != nil {
		return serverPage{}, misread(r, err)
	}
	page.size = len(answer)
	return page, nil
}

// parsePage reads an answer of GET /servers/detail. It uses only the marker of the
// link to the next page: behind a proxy the link's host or scheme is often wrong, and
// the token would be sent there.
func parsePage(body []byte) (serverPage, error) {
	var answer struct {
		Servers []json.RawMessage `json:"servers"`
		Links   []struct {
			Rel  string `json:"rel"`
			Href string `json:"href"`
		} `json:"servers_links"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return serverPage{}, fmt.Errorf("the answer can't be read: %w", err)
	}
	if answer.Servers == nil {
		return serverPage{}, errors.New("the answer has no list of instances")
	}
	var page serverPage
	for _, raw := range answer.Servers {
		server, err := parseServer(raw)
		if err != nil {
			return serverPage{}, err
		}
		page.servers = append(page.servers, server)
	}
	for _, link := range answer.Links {
		if link.Rel != "next" {
			continue
		}
		u, err := url.Parse(link.Href)
		if err != nil || u.Query().Get("marker") == "" {
			return serverPage{}, errors.New("the answer's link to the next page has no marker")
		}
		page.next = u.Query().Get("marker")
	}
	return page, nil
}
