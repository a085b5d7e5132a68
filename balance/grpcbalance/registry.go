package grpcbalance

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/resolver"

	"github.com/evenkeel-go/evenkeel/balance"
)

// Registry knows the channels of the process that use the policies of this package.
// It is what [Register] returns. A Registry is safe for concurrent use.
type Registry struct {
	mu       sync.Mutex
	channels []*Channel
	watchers atomic.Pointer[[]*watcher]
}

type watcher struct {
	changed func(target, id string, s balance.State)
}

// Channels yields the channels that are open and not idle, the oldest first, as a
// snapshot. A channel that gRPC has put to sleep, after half an hour without an RPC,
// comes back as another one.
func (r *Registry) Channels() iter.Seq[*Channel] {
	return func(yield func(*Channel) bool) {
		r.mu.Lock()
		channels := slices.Clone(r.channels)
		r.mu.Unlock()
		for _, c := range channels {
			if !yield(c) {
				return
			}
		}
	}
}

// Watch calls changed whenever a backend of any channel is ejected, comes back, or
// has warmed up, until stop is called. The target is that of grpc.ClientConn's
// CanonicalTarget, and id that of [balance.Backend]. The call is made by the RPC or
// the connection that caused it: changed must not block, nor call the ClientConn.
func (r *Registry) Watch(changed func(target, id string, s balance.State)) (stop func()) {
	w := &watcher{changed}
	r.setWatchers(func(all []*watcher) []*watcher { return append(all, w) })
	return func() {
		r.setWatchers(func(all []*watcher) []*watcher {
			return slices.DeleteFunc(all, func(other *watcher) bool { return other == w })
		})
	}
}

func (r *Registry) setWatchers(change func([]*watcher) []*watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*watcher
	if old := r.watchers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = change(all)
	r.watchers.Store(&all)
}

func (r *Registry) changed(target, id string, s balance.State) {
	if all := r.watchers.Load(); all != nil {
		for _, w := range *all {
			w.changed(target, id, s)
		}
	}
}

func (r *Registry) add(c *Channel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.channels = append(r.channels, c)
}

func (r *Registry) remove(c *Channel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.channels = slices.DeleteFunc(r.channels, func(other *Channel) bool { return other == c })
}

// Channel is the balancer of one grpc.ClientConn. It is safe for concurrent use.
type Channel struct {
	target, policy string // immutable

	// current is nil until the first endpoints have come.
	current atomic.Pointer[balance.Balancer[*child]]
}

// Target returns the channel's target, as grpc.ClientConn's CanonicalTarget.
func (c *Channel) Target() string { return c.target }

// Policy returns the name of the channel's policy.
func (c *Channel) Policy() string { return c.policy }

// Stats yields the backends to which there is a connection that is ready, sorted by
// ID, and what is known of each. See [balance.Balancer.Stats]. The latency is known
// to [LeastLatency] only, and only of unary RPCs.
func (c *Channel) Stats() iter.Seq2[balance.Backend[resolver.Endpoint], balance.Stats] {
	return func(yield func(balance.Backend[resolver.Endpoint], balance.Stats) bool) {
		b := c.current.Load()
		if b == nil {
			return
		}
		for backend, stats := range b.Stats() {
			if !yield(balance.Backend[resolver.Endpoint]{
				ID: backend.ID, Value: backend.Value.endpoint, Weight: backend.Weight, Zone: backend.Zone,
			}, stats) {
				return
			}
		}
	}
}

// Blind returns the part of the picks, from 0 to 1, in which nothing was known of any
// candidate's load. See [balance.Balancer.Blind].
func (c *Channel) Blind() float64 {
	if b := c.current.Load(); b != nil {
		return b.Blind()
	}
	return 0
}
