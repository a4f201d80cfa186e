package nova

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const dialLimit = 10 * time.Second

// maxAnswer bounds an answer's body, in bytes. Nova's largest is a page of 1000 instances, at
// some KiB each.
const maxAnswer = 64 << 20

var errTooLong = errors.New("the answer is longer than any of Nova's or Keystone's")

// transport counts and logs every HTTP request, and ends an answer that is too long.
type transport struct {
	base  http.RoundTripper
	calls *atomic.Int64
	most  int64 // bytes of an answer
}

func newTransport(config *tls.Config, calls *atomic.Int64) *transport {
	return &transport{calls: calls, most: maxAnswer, base: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialLimit}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialLimit,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
	}}
}

// RoundTrip sends the request and writes one debug line to the log of its context,
// without headers and body, because these hold tokens and passwords.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.calls.Add(1)
	start := time.Now()
	resp, err := t.base.RoundTrip(req)
	line := zerolog.Ctx(req.Context()).Debug().
		Str("method", req.Method).
		Str("path", req.URL.RequestURI()).
		Int64("ms", time.Since(start).Milliseconds())
	if err != nil {
		line.Err(err).Msg("OpenStack API")
		return nil, err
	}
	line.Int("status", resp.StatusCode).Str("request_id", requestID(resp.Header)).Msg("OpenStack API")
	resp.Body = &bounded{resp.Body, t.most}
	return resp, nil
}

// bounded is a body of which so many bytes can be read; its end must come before that.
type bounded struct {
	io.ReadCloser
	left int64
}

// Read returns errTooLong once more was read than may be.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// requestID is the request's ID in OpenStack's own logs.
func requestID(h http.Header) string {
	if id := h.Get("X-Openstack-Request-Id"); id != "" {
		return id
	}
	return h.Get("X-Compute-Request-Id")
}

var errRedirected = errors.New("redirected to another server; the token stays here")

// sameServer follows a redirect only to the same server: net/http strips
// Authorization from a redirect to another host, but not X-Auth-Token.
func sameServer(req *http.Request, via []*http.Request) error {
	if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme || len(via) >= 5 {
		return errRedirected
	}
	return nil
}
