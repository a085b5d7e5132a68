package grpcbalance_test

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/randomsubsetting"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"

	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

var policies = []string{
	grpcbalance.LeastRequest, grpcbalance.LeastLatency, grpcbalance.RoundRobin, grpcbalance.Random,
}

func TestBackendsGetRPCsAndPicksAreCounted(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			servers := startAll(t, 3)
			c := dialReady(t, policy, servers)
			require.Equal(t, policy, c.channel().Policy())
			by := map[string]int{}
			l := c.load(4)
			l.more(300)
			l.end()
			for _, s := range servers {
				by[s.addr] = int(s.served.Load())
				if policy != grpcbalance.LeastLatency { // which may find one of them slow
					require.Positive(t, by[s.addr])
				}
			}
			if policy == grpcbalance.RoundRobin {
				require.InDelta(t, by[servers[0].addr], by[servers[1].addr], 1)
				require.InDelta(t, by[servers[0].addr], by[servers[2].addr], 1)
			}
			for addr, s := range c.stats() {
				require.EqualValues(t, by[addr], s.Picks)
				require.Zero(t, s.InFlight)
			}
		})
	}
}

func TestAKilledServerFailsNothingButWhatItHad(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			servers := startAll(t, 3)
			c := dialReady(t, policy, servers)
			const workers = 8
			l := c.load(workers)
			l.more(100)
			servers[0].grpc.Stop()
			c.waitFor(servers[1:]...)
			l.more(100)
			// A worker has one RPC under way at most.
			require.LessOrEqual(t, l.failures.Load(), int64(workers), l.err())
			before := l.failures.Load()
			l.more(200)
			l.end()
			require.Equal(t, before, l.failures.Load(), l.err())
		})
	}
}

func TestADrainedServerFailsNothing(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			servers := startAll(t, 3)
			c := dialReady(t, policy, servers)
			l := c.load(8)
			l.more(100)
			servers[0].grpc.GracefulStop()
			c.waitFor(servers[1:]...)
			l.more(200)
			l.end()
			require.Zero(t, l.failures.Load(), l.err())
		})
	}
}

func TestADrainedServerKeepsItsStreams(t *testing.T) {
	servers := startAll(t, 2)
	c := dialReady(t, grpcbalance.LeastRequest, servers)
	stream, addr := c.stream(t.Context())
	drained, other := servers[0], servers[1]
	if addr == other.addr {
		drained, other = other, drained
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		drained.grpc.GracefulStop()
	}()
	c.waitFor(other)
	require.Equal(t, map[string]int{other.addr: 20}, c.calls(20))
	require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
	_, err := stream.Recv()
	require.NoError(t, err)
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	<-stopped
}

// Servers that close their connections now and then, so that clients see new ones.
func TestConnectionsThatAreCycledFailNothing(t *testing.T) {
	servers := make([]*server, 2)
	for i := range servers {
		servers[i] = start(t, "", grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Millisecond}))
	}
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			before := servers[0].accepted.Load() + servers[1].accepted.Load()
			c := dial(t, policy, servers)
			l := c.load(4)
			eventually(t, func() bool { return servers[0].accepted.Load()+servers[1].accepted.Load() > before+10 })
			l.end()
			require.Zero(t, l.failures.Load(), l.err())
		})
	}
}

func TestAServerThatComesBackGetsRPCsAgain(t *testing.T) {
	servers := startAll(t, 2)
	c := dialReady(t, grpcbalance.LeastRequest, servers)
	servers[0].grpc.Stop()
	c.waitFor(servers[1])
	back := start(t, servers[0].addr)
	c.waitFor(back, servers[1])
	eventually(t, func() bool { c.calls(1); return back.served.Load() > 0 })
}

func TestStateSurvivesUpdatesOfTheResolver(t *testing.T) {
	servers := startAll(t, 3)
	c := dialReady(t, grpcbalance.LeastRequest, servers[:2])
	c.calls(20)
	_, busy := c.stream(t.Context())
	before := c.stats()
	require.EqualValues(t, 1, before[busy].InFlight)

	// Another order, other attributes and one more.
	changed := endpoints(servers[2], servers[1], servers[0])
	for i := range changed {
		changed[i] = grpcbalance.SetZone(grpcbalance.SetWeight(changed[i], float64(i+1)), "z")
	}
	c.resolver.UpdateState(resolver.State{Endpoints: changed})
	c.waitFor(servers...)
	after := c.stats()
	for addr, s := range before {
		require.Equal(t, s.InFlight, after[addr].InFlight)
		require.Equal(t, s.Picks, after[addr].Picks)
	}
	require.Zero(t, after[servers[2].addr].Picks)
	for b := range c.channel().Stats() {
		require.Equal(t, "z", b.Zone)
		require.Equal(t, b.ID, b.Value.Addresses[0].Addr)
		require.Contains(t, []float64{1, 2, 3}, b.Weight)
	}
	eventually(t, func() bool { c.calls(1); return servers[2].served.Load() > 0 }, "the new one gets nothing")
}

// A resolver may say in another order what addresses one endpoint has.
func TestAnEndpointIsTheSetOfItsAddresses(t *testing.T) {
	servers := startAll(t, 2)
	c := dial(t, grpcbalance.LeastRequest, nil)
	a, b := resolver.Address{Addr: servers[0].addr}, resolver.Address{Addr: servers[1].addr}
	c.resolver.UpdateState(resolver.State{Endpoints: []resolver.Endpoint{{Addresses: []resolver.Address{a, b}}}})
	eventually(t, func() bool { return len(c.stats()) == 1 })
	c.calls(5)
	before := c.stats()
	c.resolver.UpdateState(resolver.State{Endpoints: []resolver.Endpoint{{Addresses: []resolver.Address{b, a}}}})
	c.calls(5)
	after := c.stats()
	require.Len(t, after, 1)
	for id := range before {
		require.Contains(t, id, servers[0].addr)
		require.Contains(t, id, servers[1].addr)
		require.EqualValues(t, 5, before[id].Picks)
		require.EqualValues(t, 10, after[id].Picks)
	}
}

func TestARemovedBackendEndsItsRPCsAndGetsNoOthers(t *testing.T) {
	servers := startAll(t, 2)
	c := dialReady(t, grpcbalance.LeastRequest, servers)
	stream, addr := c.stream(t.Context())
	stays, leaves := servers[0], servers[1]
	if addr == stays.addr {
		stays, leaves = leaves, stays
	}
	c.update(stays)
	c.waitFor(stays)
	require.Equal(t, map[string]int{stays.addr: 20}, c.calls(20))

	// It comes back as a new one, which the old stream does not touch.
	c.update(servers...)
	c.waitFor(servers...)
	require.Zero(t, c.stats()[leaves.addr].InFlight)
	require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
	_, err := stream.Recv()
	require.NoError(t, err, "the stream on the old connection goes on")
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.Zero(t, c.stats()[leaves.addr].InFlight)
}

func TestDuplicateEndpointsAreOne(t *testing.T) {
	servers := startAll(t, 2)
	c := dial(t, grpcbalance.RoundRobin, []*server{servers[0], servers[1], servers[0]})
	c.waitFor(servers...)
	require.Equal(t, map[string]int{servers[0].addr: 10, servers[1].addr: 10}, c.calls(20))
}

func TestWeightsAreShares(t *testing.T) {
	for _, policy := range []string{grpcbalance.LeastRequest, grpcbalance.RoundRobin, grpcbalance.Random} {
		t.Run(policy, func(t *testing.T) {
			servers := startAll(t, 2)
			c := dial(t, policy, nil)
			e := endpoints(servers...)
			e[0] = grpcbalance.SetWeight(e[0], 9)
			c.resolver.UpdateState(resolver.State{Endpoints: e})
			c.waitFor(servers...)
			by := c.calls(400)
			// A binomial with p = 0.9: 6 sigma are 36.
			require.InDelta(t, 360, by[servers[0].addr], 37)
		})
	}
}

func TestABadWeightIsRefusedAndChangesNothing(t *testing.T) {
	servers := startAll(t, 2)
	c := dialReady(t, grpcbalance.LeastRequest, servers[:1])
	e := endpoints(servers...)
	e[1] = grpcbalance.SetWeight(e[1], -1)
	err := c.resolver.CC().UpdateState(resolver.State{Endpoints: e})
	require.ErrorContains(t, err, servers[1].addr)
	require.ErrorContains(t, err, "-1")
	require.Equal(t, map[string]int{servers[0].addr: 10}, c.calls(10))
	require.Len(t, c.stats(), 1)
}

// The policies can stand below others: this one connects to some endpoints only.
func TestBelowAPolicyThatSubsets(t *testing.T) {
	servers := startAll(t, 5)
	c := dial(t, grpcbalance.LeastRequest, servers, serviceConfig("random_subsetting_experimental",
		`{"subsetSize":2,"childPolicy":[{"`+grpcbalance.LeastRequest+`":{}}]}`, ""))
	eventually(t, func() bool { return len(c.stats()) == 2 })
	require.Len(t, c.calls(100), 2)
	var connections int64
	for _, s := range servers {
		connections += s.accepted.Load()
	}
	require.EqualValues(t, 2, connections)
}
