package grpcbalance_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

var noCredentials = insecure.NewCredentials()

// fakeStats are those of the balancer of the only channel that is built on a fake.
func fakeStats(t testing.TB) map[string]balance.Stats {
	all := map[string]balance.Stats{}
	for ch := range registry.Channels() {
		if ch.Target() == (resolver.Target{}).String() {
			for b, s := range ch.Stats() {
				all[b.ID] = s
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

// gRPC calls Done with nothing in it if the connection was lost just before: that is
// neither a success nor a failure, and ends the pick.
func TestAPickOfALostConnectionIsEnded(t *testing.T) {
	for _, policy := range policies {
		c := fake(t, policy, `{}`)
		c.ctx = unaryContext(t, grpcbalance.DialOptions(policy))
		c.ready(fakeEndpoints(1)...)
		addr, done := c.pick()
		require.EqualValues(t, 1, fakeStats(t)[addr].InFlight)
		done(balancer.DoneInfo{})
		s := fakeStats(t)[addr]
		require.Zero(t, s.InFlight)
		require.Zero(t, s.Failures)
		require.Zero(t, s.Latency)
		c.balancer.Close()
		require.Empty(t, c.subConns(), "Close closes the connections")
	}
}

// A caller that goes away does not end a row of failures, as a success would, nor
// make it longer.
func TestACancelledRPCIsNeitherSuccessNorFailure(t *testing.T) {
	c := fake(t, grpcbalance.RoundRobin, `{"health":{"consecutive":3}}`)
	c.ready(fakeEndpoints(2)...)
	first := ""
	for i, code := range []codes.Code{codes.Unavailable, codes.Canceled, codes.Unavailable, codes.Canceled, codes.Unavailable} {
		addr, done := c.pick()
		if first == "" {
			first = addr
		}
		require.Equal(t, first, addr)
		done(balancer.DoneInfo{BytesSent: true, Err: status.Error(code, "as told")})
		if i < 4 {
			require.Equal(t, balance.Healthy, fakeStats(t)[first].State)
			_, done = c.pick() // the other's turn
			done(balancer.DoneInfo{BytesSent: true})
		}
	}
	require.Equal(t, balance.Ejected, fakeStats(t)[first].State)
	require.EqualValues(t, 3, fakeStats(t)[first].Failures)
}

func TestPickersThatAreReplacedSeeTheSameCounts(t *testing.T) {
	c := fake(t, grpcbalance.LeastRequest, `{}`)
	e := fakeEndpoints(2)
	c.ready(e...)
	first, done := c.pick()
	old := c.picker()
	other := e[0].Addresses[0].Addr
	if other == first {
		other = e[1].Addresses[0].Addr
	}
	// The state of a third one changes: another picker.
	third := resolver.Endpoint{Addresses: []resolver.Address{{Addr: "10.9.9.9:1"}}}
	require.NoError(t, c.update(append(e, third)...))
	for range 5 { // by chance it would be the other once, twice at best
		r, err := old.Pick(balancer.PickInfo{Ctx: context.Background()})
		require.NoError(t, err)
		require.Equal(t, other, r.SubConn.(*fakeSub).addr)
		r.Done(balancer.DoneInfo{BytesSent: true})
		addr, done := c.pick()
		require.Equal(t, other, addr)
		done(balancer.DoneInfo{BytesSent: true})
	}
	done(balancer.DoneInfo{BytesSent: true})
	require.Zero(t, fakeStats(t)[first].InFlight)
}

// A picker that is used after the last connection is lost makes the RPC wait for the
// next picker; it does not fail it.
func TestAPickerWithoutConnectionsMakesRPCsWait(t *testing.T) {
	c := fake(t, grpcbalance.LeastRequest, `{}`)
	e := fakeEndpoints(1)
	c.ready(e...)
	old := c.picker()
	c.sub(e[0].Addresses[0].Addr).become(connectivity.Idle)
	_, err := old.Pick(balancer.PickInfo{Ctx: context.Background()})
	require.Equal(t, balancer.ErrNoSubConnAvailable, err)
	_, err = c.picker().Pick(balancer.PickInfo{Ctx: context.Background()})
	require.Equal(t, balancer.ErrNoSubConnAvailable, err)
	require.NotEqual(t, connectivity.TransientFailure, c.state.ConnectivityState)
}

func TestAnotherConfigStartsAnewAndTheSameDoesNot(t *testing.T) {
	c := fake(t, grpcbalance.LeastRequest, `{"choices":2}`)
	e := fakeEndpoints(1)
	c.ready(e...)
	addr, done := c.pick()
	parse := func(config string) {
		var err error
		c.config, err = balancer.Get(grpcbalance.LeastRequest).(balancer.ConfigParser).ParseConfig([]byte(config))
		require.NoError(t, err)
		require.NoError(t, c.update(e...))
	}
	parse(`{ "choices": 2, "fromALaterVersion": 1 }`)
	require.EqualValues(t, 1, fakeStats(t)[addr].Picks)
	parse(`{"choices":3}`)
	require.Zero(t, fakeStats(t)[addr].Picks)
	done(balancer.DoneInfo{BytesSent: true}) // belongs to the old one
	require.Zero(t, fakeStats(t)[addr].InFlight)
}

func TestWatchersSeeABackendGoAndComeBack(t *testing.T) {
	c := fake(t, grpcbalance.RoundRobin, `{"health":{"consecutive":1,"baseEjection":"1ms"}}`)
	c.ready(fakeEndpoints(2)...)
	var mu sync.Mutex
	seen := map[string][]balance.State{}
	watch := func() (stop func()) {
		return registry.Watch(func(_, id string, s balance.State) {
			mu.Lock()
			defer mu.Unlock()
			seen[id] = append(seen[id], s)
		})
	}
	states := func(id string) []balance.State {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen[id])
	}
	stop := watch()
	addr, done := c.pick()
	done(balancer.DoneInfo{BytesSent: true, Err: status.Error(codes.Unavailable, "as told")})
	require.Equal(t, []balance.State{balance.Ejected}, states(addr))
	eventually(t, func() bool {
		_, done := c.pick()
		done(balancer.DoneInfo{BytesSent: true})
		return len(states(addr)) > 1
	})
	require.Equal(t, []balance.State{balance.Ejected, balance.Healthy}, states(addr))
	stop()
	addr, done = c.pick()
	before := states(addr)
	done(balancer.DoneInfo{BytesSent: true, Err: status.Error(codes.Unavailable, "as told")})
	require.Equal(t, balance.Ejected, fakeStats(t)[addr].State)
	require.Equal(t, before, states(addr))
}

// Paths of sockets may hold what separates the addresses of an endpoint.
func TestEndpointsThatLookAlikeAreTwo(t *testing.T) {
	c := fake(t, grpcbalance.LeastRequest, `{}`)
	c.ready(
		resolver.Endpoint{Addresses: []resolver.Address{{Addr: "/run/a,/run/b"}}},
		resolver.Endpoint{Addresses: []resolver.Address{{Addr: "/run/a"}, {Addr: "/run/b"}}},
		resolver.Endpoint{Addresses: []resolver.Address{{Addr: "/run/a%2C/run/b"}}},
		resolver.Endpoint{Addresses: []resolver.Address{{Addr: ""}}},
	)
	require.Len(t, fakeStats(t), 4)
}

func TestPickingWhileConnectionsComeAndGo(t *testing.T) {
	c := fake(t, grpcbalance.LeastRequest, `{}`)
	e := fakeEndpoints(8)
	c.ready(e...)
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := c.picker().Pick(balancer.PickInfo{Ctx: context.Background()})
				if err == nil {
					r.Done(balancer.DoneInfo{BytesSent: true})
				}
			}
		})
	}
	for i := range 200 {
		s := c.sub(e[i%7].Addresses[0].Addr) // never the eighth
		s.become(connectivity.Idle)
		// pick_first starts over.
		for _, s := range c.subConns() {
			if s.addr == e[i%7].Addresses[0].Addr {
				s.become(connectivity.Connecting)
				s.become(connectivity.Ready)
			}
		}
	}
	close(stop)
	workers.Wait()
	for _, s := range fakeStats(t) {
		require.Zero(t, s.InFlight)
	}
}

// The function that ends the pick is the only allocation.
func TestAPickAllocatesOnce(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	ctx := unaryContext(t, grpcbalance.DialOptions(grpcbalance.LeastRequest))
	for _, policy := range policies {
		c := fake(t, policy, `{}`)
		c.ready(fakeEndpoints(10)...)
		p := c.picker()
		for _, ctx := range []context.Context{context.Background(), ctx} {
			require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
				r, err := p.Pick(balancer.PickInfo{Ctx: ctx})
				if err != nil {
					panic(err)
				}
				r.Done(balancer.DoneInfo{BytesSent: true})
			}), 1.0, policy)
		}
		c.balancer.Close()
	}
}
