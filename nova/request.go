package nova

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/rs/zerolog"
)

// request is a request to Nova or Keystone.
type request struct {
	doing    string // begins its errors: "locking instance U"
	method   string
	url      string
	body     any
	into     any    // where the JSON answer goes; nil for none
	ok       []int  // the expected statuses; gophercloud's defaults when nil
	policy   string // the policy that a 403 is about, if the answer doesn't name one
	instance bool   // a 404 means that there is no such instance
	once     bool   // it must not be carried out twice
}

// instance begins a request about one instance, with a path below the instance's.
func (s *session) instance(doing, uuid string, path ...string) request {
	parts := append([]string{"servers", url.PathEscape(uuid)}, path...)
	return request{
		doing:    fmt.Sprintf("%s instance %s", doing, uuid),
		url:      s.compute.ServiceURL(parts...),
		instance: true,
	}
}

// send sends a request, repeats it after transient failures, and returns the errors
// of recover.Cloud.
func (s *session) send(ctx context.Context, service *gophercloud.ServiceClient, r request) error {
	err := s.retry(ctx, r, func() error {
		//nolint:bodyclose // gophercloud closes it unless KeepResponseBody is set
		_, err := service.Request(ctx, r.method, r.url, &gophercloud.RequestOpts{
			JSONBody: r.body, JSONResponse: r.into, OkCodes: r.ok,
		})
		return err
	})
	if err != nil {
		return s.who.explain(ctx, r, err)
	}
	return nil
}

// retry runs the attempt until it succeeds, the failure is not transient, RetryFor is
// over or the context ends. A request that must not be carried out twice is sent
// again only after a failure that proves that it was not accepted. The error is a
// *failure.
func (s *session) retry(ctx context.Context, r request, attempt func() error) error {
	var last error
	tries := 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := attempt()
		if err == nil {
			return struct{}{}, nil
		}
		f := readFailure(r, err, time.Now())
		last = f
		tries++
		switch {
		case !f.transient, r.once && !f.rejected, ctx.Err() != nil:
			return struct{}{}, backoff.Permanent(f)
		case f.retryAfter > 0:
			return struct{}{}, errors.Join(f, &backoff.RetryAfterError{Duration: f.retryAfter})
		}
		return struct{}{}, f
	},
		backoff.WithBackOff(s.waits()),
		backoff.WithMaxElapsedTime(s.opts.RetryFor),
		backoff.WithNotify(func(err error, wait time.Duration) {
			line := zerolog.Ctx(ctx).Debug()
			if tries == 1 {
				line = zerolog.Ctx(ctx).Warn()
			}
			line.Err(last).Dur("wait", wait).Stringer("for_up_to", s.opts.RetryFor).Msgf("%s: trying again", r.doing)
		}))
	if err == nil {
		return nil
	}
	return last
}

func (s *session) waits() *backoff.ExponentialBackOff {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = s.opts.firstWait
	waits.MaxInterval = maxWait
	return waits
}
