package grpcbalance

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/grpclog"

	"github.com/evenkeel-go/evenkeel/balance"
)

// petiole is the policy of one channel. Its children are gRPC's: one pick_first for
// each endpoint, which connects, reconnects and watches the endpoint's health. It
// gives the balancer those that are ready, and has no goroutine.
type petiole struct {
	balancer.ClientConn // what the children report comes to UpdateState

	builder  *builder          // immutable
	children balancer.Balancer // immutable
	channel  *Channel          // immutable

	mu       sync.Mutex
	settings settings
	picker   *picker // nil until the first endpoints have come
	lastErr  error   // of the resolver, since its last good answer
	closed   bool
}

var errNoEndpoints = errors.New("grpcbalance: the name resolves to no endpoints")

// UpdateClientConnState takes new endpoints, a new config, or both. What is known of
// an endpoint that stays is kept, unless the config has changed.
func (p *petiole) UpdateClientConnState(s balancer.ClientConnState) error {
	c, ok := s.BalancerConfig.(*config)
	if !ok {
		return fmt.Errorf("grpcbalance: config of %s is a %T, expected one that its ParseConfig returned", p.builder.name, s.BalancerConfig)
	}
	if err := checkWeights(s.ResolverState.Endpoints); err != nil {
		p.ResolverError(err)
		return err
	}
	if err := p.configure(c.settings); err != nil {
		return err
	}
	p.resolved(nil)
	// Ends with a call of UpdateState.
	return p.children.UpdateClientConnState(balancer.ClientConnState{
		// With the listener, a backend that says it is not serving is not ready.
		ResolverState: pickfirst.EnableHealthListener(s.ResolverState),
	})
}

// configure makes a balancer for the settings, unless there is one.
func (p *petiole) configure(s settings) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.picker != nil && p.settings == s {
		return nil
	}
	b, err := p.builder.newBalancer(s, func(id string, s balance.State) {
		p.builder.registry.changed(p.channel.target, id, s)
	})
	if err != nil {
		return err
	}
	p.settings = s
	p.picker = &picker{balancer: b, timed: p.builder.timed, failures: s.failures}
	p.channel.current.Store(b)
	return nil
}

// resolved notes how the last resolution went.
func (p *petiole) resolved(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastErr = err
}

// ResolverError keeps the endpoints that are known. Without any, RPCs fail with err.
func (p *petiole) ResolverError(err error) {
	p.resolved(fmt.Errorf("name resolver error: %w", err))
	// Ends with a call of UpdateState.
	p.children.ResolverError(err)
}

// UpdateState takes the states of all children. It is called whenever one of them
// has changed.
func (p *petiole) UpdateState(s balancer.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	children := endpointsharding.ChildStatesFromPicker(s.Picker)
	ready := make([]balance.Backend[*child], 0, len(children))
	for _, c := range children {
		if c.State.ConnectivityState == connectivity.Ready {
			ready = append(ready, balance.Backend[*child]{
				ID:     idOf(c.Endpoint),
				Value:  &child{picker: c.State.Picker, endpoint: c.Endpoint},
				Weight: weightOf(c.Endpoint),
				Zone:   zoneOf(c.Endpoint),
			})
		}
	}
	// They come in no order, and turns are taken in this one.
	slices.SortFunc(ready, func(a, b balance.Backend[*child]) int { return cmp.Compare(a.ID, b.ID) })
	if p.picker != nil {
		if err := p.picker.balancer.Update(ready); err != nil {
			grpclog.Component("evenkeel").Errorf("%s: %v", p.channel.target, err)
		}
	}
	switch {
	case len(ready) > 0:
		s = balancer.State{ConnectivityState: connectivity.Ready, Picker: p.picker}
	case len(children) == 0:
		s.Picker = base.NewErrPicker(cmp.Or(p.lastErr, errNoEndpoints))
	default:
		// gRPC's own: RPCs wait while any child connects, and fail with the error of one
		// of the children if all have failed.
	}
	p.ClientConn.UpdateState(s)
}

// UpdateSubConnState is not called: pick_first listens itself.
func (p *petiole) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle makes all children connect.
func (p *petiole) ExitIdle() { p.children.ExitIdle() }

// Close closes the children and with them the connections. RPCs that are under way
// end as they end.
func (p *petiole) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.builder.registry.remove(p.channel)
	p.children.Close()
}
