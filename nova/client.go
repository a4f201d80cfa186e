package nova

import (
	"context"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// Defaults of Options.
const (
	DefaultRetryFor = 60 * time.Second
	// defaultCallLimit is above the 60 s that Nova itself waits for the database of
	// a cell before it answers without that cell (nova/context.py, CELL_TIMEOUT). A
	// list may wait more than once.
	defaultCallLimit = 3 * time.Minute
)

const (
	firstWait = 500 * time.Millisecond // before the first repetition of a request
	maxWait   = 10 * time.Second
)

// Options select the cloud and bound its requests. Everything else comes from the
// usual places of OpenStack clients: clouds.yaml and the OS_* variables of the
// process's environment, which gophercloud's loader reads itself.
type Options struct {
	Cloud     string        // a cloud of clouds.yaml (--os-cloud); wins over OS_CLOUD
	RetryFor  time.Duration // limit for the repetitions of one operation; DefaultRetryFor when 0
	CallLimit time.Duration // limit of one HTTP call; 3 minutes when 0
	UserAgent string        // put before gophercloud's own

	firstWait time.Duration // firstWait when 0
	pageSize  int           // of lists; Nova's max_limit when 0
	listSize  int           // maxList when 0
}

func (o *Options) setDefaults() {
	if o.RetryFor == 0 {
		o.RetryFor = DefaultRetryFor
	}
	if o.CallLimit == 0 {
		o.CallLimit = defaultCallLimit
	}
	if o.firstWait == 0 {
		o.firstWait = firstWait
	}
	if o.listSize == 0 {
		o.listSize = maxList
	}
}

// Client is a signed-in user of one region. It is safe for concurrent use. Its methods
// are those of the parts that it embeds; all parts share its session.
type Client struct {
	*session

	servers
	actions
	services
	projects
}

var _ recover.Cloud = (*Client)(nil)

// Open finds the credentials, signs in, finds the compute endpoint and negotiates a
// microversion.
//
// Errors: recover.ErrCredentials when no credentials were found (the text lists what
// was looked for, and where), when they are incomplete or not accepted, or when the
// catalogue has no compute endpoint of the region and interface;
// recover.ErrCloudUnavailable when Keystone or Nova did not answer for RetryFor, or
// their certificate is not trusted; ErrTooOld when Nova does not know microversion
// 2.9.
func Open(ctx context.Context, opts Options) (*Client, error) {
	s, err := openSession(ctx, opts)
	if err != nil {
		return nil, err
	}
	return newClient(s), nil
}

func newClient(s *session) *Client {
	return &Client{session: s, servers: servers{s}, actions: actions{s}, services: services{s}, projects: projects{s}}
}
