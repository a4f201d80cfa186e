package nova

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
)

var errNoAuthSection = errors.New("it has no auth section")

// parseClouds is clouds.Parse, which panics in gophercloud v2.15.0 when the cloud
// has no auth section (it reads cloud.AuthInfo.TrustID unchecked).
func parseClouds(opts ...clouds.ParseOption) (
	auth gophercloud.AuthOptions,
	endpoint gophercloud.EndpointOpts,
	config *tls.Config,
	err error,
) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", errNoAuthSection, p)
		}
	}()
	return clouds.Parse(opts...)
}
