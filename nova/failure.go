package nova

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
)

// failure is a failed HTTP request. Its text has Nova's or Keystone's own message and
// no secret.
type failure struct {
	method, url string
	status      int    // 0: no answer
	fault       string // the key of the answer's object: itemNotFound, conflictingRequest, ...
	message     string // the service's own
	requestID   string
	cause       error // when status is 0

	transient  bool          // a repetition may succeed
	rejected   bool          // the failure proves that the request was not carried out
	retryAfter time.Duration // requested by the service; 0 when it didn't
}

func (f *failure) Error() string {
	var b strings.Builder
	if f.message != "" {
		b.WriteString(f.message)
		b.WriteString(" ")
	}
	fmt.Fprintf(&b, "(%s %s: ", f.method, f.url)
	if f.status == 0 {
		b.WriteString(f.cause.Error())
	} else {
		fmt.Fprintf(&b, "HTTP %d", f.status)
	}
	if f.requestID != "" {
		fmt.Fprintf(&b, ", request %s", f.requestID)
	}
	b.WriteString(")")
	return b.String()
}

func (f *failure) Unwrap() error { return f.cause }

// readFailure interprets an error of gophercloud for the request r. now is the time
// from which a Retry-After date counts.
func readFailure(r request, err error, now time.Time) *failure {
	f := &failure{method: r.method, url: r.url}
	// The request was answered with 401, so it was not carried out. The new sign-in
	// failed, and its failure is the one to interpret.
	var reauth *gophercloud.ErrUnableToReauthenticate
	if errors.As(err, &reauth) {
		f = readFailure(r, reauth.ErrReauth, now)
		f.rejected = true
		return f
	}
	var answer gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &answer) {
		f.method, f.url, f.status = answer.Method, answer.URL, answer.Actual
		f.fault, f.message = serviceMessage(answer.Body)
		f.requestID = requestID(answer.ResponseHeader)
		f.retryAfter = retryAfter(answer.ResponseHeader, now)
		switch f.status {
		case http.StatusTooManyRequests:
			f.transient, f.rejected = true, true
		case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			f.transient = true
		}
		return f
	}
	f.cause = err
	var sent *url.Error
	if errors.As(err, &sent) {
		f.method, f.url, f.cause = strings.ToUpper(sent.Op), sent.URL, sent.Err
	}
	var dns *net.DNSError
	var dial *net.OpError
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, errRedirected), errors.Is(err, errTooLong), isCertificateError(err),
		errors.As(err, &syntax) && !errors.Is(err, io.ErrUnexpectedEOF):
	case errors.As(err, &dns):
		f.transient, f.rejected = !dns.IsNotFound, true
	case errors.As(err, &dial) && dial.Op == "dial":
		f.transient, f.rejected = true, true
	case isTimeout(err):
		f.transient = true
		// Not wrapped: this is the limit of one call, and errors.Is would mistake it for
		// the end of the caller's context.
		f.cause = errors.New("no answer within the time limit of one call")
	case errors.Is(err, context.Canceled):
		// The caller's own context was checked before. This one belongs to another
		// request, which was renewing the token for all.
		f.transient = true
		f.cause = errors.New("the renewal of the token was interrupted")
	case sent != nil, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		f.transient = true
	case errors.As(err, new(*net.OpError)): // while the body was read
		f.transient = true
	}
	return f
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// serviceMessage reads an error's body: {"conflictingRequest": {"code": 409,
// "message": "..."}} is Nova's (nova/api/openstack/wsgi.py, Fault), {"error": {...}}
// Keystone's. Any other body, such as a proxy's, has no message.
func serviceMessage(body []byte) (fault, message string) {
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil || len(object) != 1 {
		return "", ""
	}
	for key, value := range object {
		var inner struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(value, &inner) == nil {
			fault, message = key, inner.Message
		}
	}
	const longest = 600
	message = strings.Join(strings.Fields(message), " ") // one line
	if len(message) > longest {
		message = strings.ToValidUTF8(message[:longest], "") + "..."
	}
	return fault, message
}

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return min(time.Duration(seconds), 24*60*60) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
