package grpcbalance

import (
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"

	"github.com/evenkeel-go/evenkeel/balance"
)

// The names of the policies, in a service config and for [DialOptions].
const (
	// LeastRequest draws two backends and picks the one with fewer RPCs under way:
	// [balance.LeastRequest]. The one to use unless you know better.
	LeastRequest = "evenkeel_least_request"

	// LeastLatency draws two backends and picks the one that is expected to answer
	// first: [balance.LeastLatency].
	LeastLatency = "evenkeel_least_latency"

	// RoundRobin takes turns, by weight: [balance.RoundRobin].
	RoundRobin = "evenkeel_round_robin"

	// Random draws by weight: [balance.Random].
	Random = "evenkeel_random"
)

// Register makes the policies known to gRPC and returns the [Registry] of the
// channels that use them. Call it at the start of main, before the first
// grpc.NewClient: gRPC keeps its policies in a map without a lock, which is why it
// asks for registration while a program initialises.
//
// Calls after the first change nothing and return the same Registry, so that every
// library that needs the policies may call it; those calls are safe for concurrent
// use.
func Register() *Registry {
	if b, ok := balancer.Get(LeastRequest).(*builder); ok {
		return b.registry
	}
	r := &Registry{}
	for _, b := range []*builder{
		{name: LeastRequest, strategy: func(s settings) balance.Strategy {
			return balance.LeastRequest(balance.LeastRequestOptions{Choices: s.choices})
		}},
		{name: LeastLatency, timed: true, strategy: func(s settings) balance.Strategy {
			return balance.LeastLatency(balance.LatencyOptions{Decay: s.decay})
		}},
		{name: RoundRobin, strategy: func(settings) balance.Strategy { return balance.RoundRobin() }},
		{name: Random, strategy: func(settings) balance.Strategy { return balance.Random() }},
	} {
		b.registry = r
		balancer.Register(b)
	}
	return r
}

// builder builds the balancers of one policy.
type builder struct {
	name     string
	timed    bool // the strategy learns latencies
	strategy func(settings) balance.Strategy
	registry *Registry
}

func (b *builder) Name() string { return b.name }

func (b *builder) Build(cc balancer.ClientConn, o balancer.BuildOptions) balancer.Balancer {
	p := &petiole{ClientConn: cc, builder: b, channel: &Channel{target: o.Target.String(), policy: b.name}}
	p.children = endpointsharding.NewBalancer(p, o, balancer.Get(pickfirst.Name).Build, endpointsharding.Options{})
	b.registry.add(p.channel)
	return p
}

// newBalancer makes the balancer that the settings describe.
func (b *builder) newBalancer(s settings, onChange func(id string, s balance.State)) (*balance.Balancer[*child], error) {
	return balance.New[*child](b.strategy(s), balance.Options{
		Classify: classify,
		Health:   s.health,
		Zone:     s.zone,
		OnChange: onChange,
	})
}
