package nova

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// services read the states of hosts' services.
type services struct{ *session }

// ComputeService returns the state of a host's nova-compute. Up is Nova's own view of
// its heartbeats, and false for one that an admin forced down. Known is false when
// Nova has no nova-compute of that host.
//
// recover.ErrCloudUnavailable also when Nova answers but can't tell the state, because
// the service's cell is down (2.69+).
func (c services) ComputeService(ctx context.Context, host string) (recover.ComputeService, error) {
	var answer struct {
		Services []computeService `json:"services"`
	}
	query := url.Values{"binary": {"nova-compute"}, "host": {host}}
	r := request{
		doing:  "asking for nova-compute on " + host,
		method: http.MethodGet,
		url:    c.compute.ServiceURL("os-services") + "?" + query.Encode(),
		into:   &answer,
		policy: policyServices,
	}
	if err := c.send(ctx, c.compute, r); err != nil {
		return recover.ComputeService{}, err
	}
	if answer.Services == nil {
		return recover.ComputeService{}, fmt.Errorf("%s: %w: it has no list of services", r.doing, recover.ErrCloudAnswer)
	}
	var found recover.ComputeService
	for _, s := range answer.Services {
		if s.Host != host || s.Binary != "nova-compute" {
			continue
		}
		// nova/api/openstack/compute/services.py, _get_service_detail.
		if s.Status == "UNKNOWN" {
			return recover.ComputeService{}, fmt.Errorf("%s: %w: its cell's database does not answer Nova",
				r.doing, recover.ErrCloudUnavailable)
		}
		service, err := s.read()
		if err != nil {
			return recover.ComputeService{}, misread(r, err)
		}
		// If two cells have the host name, take the service that is up.
		if !found.Known || service.Up && !found.Up {
			found = service
		}
	}
	return found, nil
}

// computeService is Nova's record of a service.
type computeService struct {
	Binary         string           `json:"binary"`
	Host           string           `json:"host"`
	Status         string           `json:"status"` // enabled, disabled, UNKNOWN
	State          string           `json:"state"`  // up, down
	DisabledReason optional[string] `json:"disabled_reason"`
	UpdatedAt      optional[string] `json:"updated_at"` // UTC, without a zone; null before the first heartbeat
}

func (s computeService) read() (recover.ComputeService, error) {
	service := recover.ComputeService{
		Known:          true,
		Up:             s.State == "up",
		Disabled:       s.Status == "disabled",
		DisabledReason: s.DisabledReason.value,
	}
	if at := s.UpdatedAt.value; at != "" {
		var err error
		if service.UpdatedAt, err = time.Parse("2006-01-02T15:04:05", at); err != nil {
			return recover.ComputeService{}, fmt.Errorf("the time of its last heartbeat: %w", err)
		}
	}
	return service, nil
}
