package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// novaAnswer is what Nova says of an instance whose domain or files are gone.
type novaAnswer int

const (
	novaOffline     novaAnswer = iota // the guard works without Nova
	novaUnknown                       // Nova, or the instance's cell, does not answer: never "deleted"
	novaHere                          // it exists on this host, and nothing is under way
	novaBusy                          // a task is under way: perhaps the one that deletes it
	novaMoved                         // it exists on another host, or on none (shelved)
	novaDeleted                       // Nova itself has it among the deleted ones
	novaSoftDeleted                   // its owner has deleted it, and Nova keeps it for a while
)

// novaTime bounds one question to Nova, so that one that hangs does not keep the
// others waiting.
const novaTime = 20 * time.Second

// mostHung is how many questions of one judgement may take that long.
const mostHung = 3

// novaSide is a guard's connection to Nova. It is safe for concurrent use.
type novaSide struct {
	host     string // this host's name by the configuration
	problems *problems

	signing sync.Mutex // held while it signs in
	failed  time.Time  // the last sign-in that failed; under signing

	mu      sync.Mutex
	signIn  func(context.Context) (recover.Cloud, error) // nil: the guard works without Nova
	changes int                                          // of signIn
	cloud   recover.Cloud                                // nil until signed in
	known   string                                       // a host's name under which Nova had instances here
}

// configure sets how to sign in from now on: the credentials may be others.
func (n *novaSide) configure(signIn func(context.Context) (recover.Cloud, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.signIn, n.cloud = signIn, nil
	n.changes++
}

// connect returns the connection to Nova; nil and no error when the guard works
// without.
func (n *novaSide) connect(ctx context.Context) (recover.Cloud, error) {
	n.signing.Lock()
	defer n.signing.Unlock()
	n.mu.Lock()
	cloud, signIn, change := n.cloud, n.signIn, n.changes
	n.mu.Unlock()
	if cloud != nil || signIn == nil {
		return cloud, nil
	}
	if time.Since(n.failed) < novaTime {
		return nil, recover.ErrCloudUnavailable // just tried
	}
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	cloud, err := signIn(ctx)
	if err != nil {
		n.problems.set("nova", fmt.Errorf("no sign-in to Nova, so that nothing is taken for deleted and nothing is locked: %w", err))
		n.failed = time.Now()
		return nil, err
	}
	n.problems.set("nova", nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changes == change { // else the next caller signs in with the new credentials
		n.cloud = cloud
	}
	return cloud, nil
}

// ask asks Nova about an instance.
func (n *novaSide) ask(ctx context.Context, uuid string) novaAnswer {
	cloud, err := n.connect(ctx)
	if cloud == nil {
		if err != nil {
			return novaUnknown
		}
		return novaOffline
	}
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	server, err := cloud.Server(ctx, uuid)
	if errors.Is(err, recover.ErrNoInstance) || errors.Is(err, recover.ErrForbidden) {
		// Not found may mean that it is not shown to this user. Only Nova's own list
		// of what was deleted is proof.
		var deleted bool
		if deleted, err = cloud.Deleted(ctx, uuid); err == nil && deleted {
			n.problems.set("nova", nil)
			return novaDeleted
		}
		if err == nil {
			err = fmt.Errorf("%w: it knows no instance %s, and has none of that UUID among the deleted ones: the user may have no right "+
				"to see them, or they were archived (os-rescue guard release %s lets its files go)", recover.ErrForbidden, uuid, uuid)
		}
	}
	n.problems.set("nova", err)
	switch {
	case err != nil || server.Unknown:
		return novaUnknown
	case server.TaskState != "", server.VMState == recover.VMDeleted, server.VMState == recover.VMShelvedOffloaded && server.Host != "":
		return novaBusy
	case server.Host == n.host:
		n.confirmHost()
		if server.VMState == recover.VMSoftDeleted {
			return novaSoftDeleted
		}
		return novaHere
	case server.Host != "" && !n.isHostKnown():
		n.problems.set("host", fmt.Errorf("in Nova, instance %s is on host %q, and none has ever been seen on %s: is that this host's "+
			"name in Nova (host in the configuration)? Until then nothing is taken for moved", uuid, server.Host, n.host))
		return novaUnknown
	default:
		return novaMoved
	}
}

// learnHost finds out whether Nova calls this host by its name in the configuration,
// by an instance that libvirt has here: a purge takes nova.conf along, and the
// machine's own name may be another. Under a wrong name every instance would seem
// to be on another host.
func (n *novaSide) learnHost(ctx context.Context, report recover.Report) {
	if n.isOffline() || n.isHostKnown() {
		return
	}
	const most = 3 // a scan
	first := slices.IndexFunc(report.Instances, func(i recover.Instance) bool { return !i.GuardOnly && i.Definition.Nova != nil })
	for at := first; at >= 0 && at < min(len(report.Instances), most) && !n.isHostKnown(); at++ {
		if i := report.Instances[at]; !i.GuardOnly && i.Definition.Nova != nil {
			n.ask(ctx, i.UUID)
		}
	}
}

// isOffline is true for a guard that works without Nova.
func (n *novaSide) isOffline() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.signIn == nil
}

// rememberHost takes over the name of this host that an earlier life had seen Nova use.
func (n *novaSide) rememberHost(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known = name
}

// knownHost returns the name of this host that Nova was seen to use; empty before.
func (n *novaSide) knownHost() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known
}

func (n *novaSide) isHostKnown() bool { return n.knownHost() == n.host }

func (n *novaSide) confirmHost() {
	n.rememberHost(n.host)
	n.problems.set("host", nil)
}
