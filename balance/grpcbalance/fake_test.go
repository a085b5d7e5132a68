package grpcbalance_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	estats "google.golang.org/grpc/experimental/stats"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

// fakeConn stands for gRPC: it has no connections, so that a test says which are
// ready.
type fakeConn struct {
	balancer.ClientConn // panics if anything else is called

	t        testing.TB
	ctx      context.Context // of RPCs
	balancer balancer.Balancer
	config   serviceconfig.LoadBalancingConfig

	mu    sync.Mutex
	subs  map[string]*fakeSub // by address
	state balancer.State
}

// fake builds the balancer of a policy on a fakeConn.
func fake(t testing.TB, policy, config string) *fakeConn {
	b := balancer.Get(policy)
	require.NotNil(t, b)
	c := &fakeConn{t: t, ctx: context.Background(), subs: map[string]*fakeSub{}}
	if p, ok := b.(balancer.ConfigParser); ok {
		var err error
		c.config, err = p.ParseConfig([]byte(config))
		require.NoError(t, err)
	}
	c.balancer = b.Build(c, balancer.BuildOptions{Target: resolver.Target{}})
	t.Cleanup(c.balancer.Close)
	return c
}

// fakeEndpoints are n endpoints with one address each.
func fakeEndpoints(n int) []resolver.Endpoint {
	all := make([]resolver.Endpoint, n)
	for i := range all {
		all[i].Addresses = []resolver.Address{{Addr: fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)}}
	}
	return all
}

func (c *fakeConn) update(e ...resolver.Endpoint) error {
	return c.balancer.UpdateClientConnState(balancer.ClientConnState{
		ResolverState: resolver.State{Endpoints: e}, BalancerConfig: c.config,
	})
}

// ready resolves to endpoints and connects all of them.
func (c *fakeConn) ready(e ...resolver.Endpoint) {
	require.NoError(c.t, c.update(e...))
	for _, s := range c.subConns() {
		s.become(connectivity.Connecting)
		s.become(connectivity.Ready)
	}
}

func (c *fakeConn) subConns() (all []*fakeSub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subs {
		all = append(all, s)
	}
	return all
}

func (c *fakeConn) sub(addr string) *fakeSub {
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Contains(c.t, c.subs, addr)
	return c.subs[addr]
}

func (c *fakeConn) picker() balancer.Picker {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Picker
}

// pick picks, and returns the address and what ends the pick.
func (c *fakeConn) pick() (addr string, done func(balancer.DoneInfo)) {
	r, err := c.picker().Pick(balancer.PickInfo{Ctx: c.ctx})
	require.NoError(c.t, err)
	return r.SubConn.(*fakeSub).addr, r.Done
}

func (c *fakeConn) NewSubConn(a []resolver.Address, o balancer.NewSubConnOptions) (balancer.SubConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &fakeSub{conn: c, addr: a[0].Addr, listen: o.StateListener}
	c.subs[s.addr] = s
	return s, nil
}

func (c *fakeConn) UpdateState(s balancer.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

func (c *fakeConn) ResolveNow(resolver.ResolveNowOptions) {}

func (c *fakeConn) MetricsRecorder() estats.MetricsRecorder { return fakeRecorder{} }

type fakeRecorder struct{ estats.MetricsRecorder }

func (fakeRecorder) RecordInt64Count(*estats.Int64CountHandle, int64, ...string)       {}
func (fakeRecorder) RecordFloat64Histo(*estats.Float64HistoHandle, float64, ...string) {}

// fakeSub is a connection of a fakeConn.
type fakeSub struct {
	balancer.SubConn

	conn   *fakeConn
	addr   string
	listen func(balancer.SubConnState)
	health func(balancer.SubConnState)
}

func (s *fakeSub) become(state connectivity.State) {
	s.listen(balancer.SubConnState{ConnectivityState: state})
	if state == connectivity.Ready && s.health != nil {
		s.health(balancer.SubConnState{ConnectivityState: state})
	}
}

func (s *fakeSub) Connect()                                             {}
func (s *fakeSub) RegisterHealthListener(l func(balancer.SubConnState)) { s.health = l }

func (s *fakeSub) Shutdown() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.conn.subs[s.addr] == s {
		delete(s.conn.subs, s.addr)
	}
}

// unaryContext is the context that a unary RPC has after the interceptors of the
// dial options.
func unaryContext(t testing.TB, options []grpc.DialOption) context.Context {
	t.Helper()
	var ctx context.Context
	stop := fmt.Errorf("far enough")
	options = append(options, grpc.WithTransportCredentials(noCredentials),
		grpc.WithChainUnaryInterceptor(func(c context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			ctx = c
			return stop
		}))
	conn, err := grpc.NewClient("passthrough:///x", options...)
	require.NoError(t, err)
	defer conn.Close()
	require.ErrorIs(t, conn.Invoke(context.Background(), "/a/b", nil, nil), stop)
	return ctx
}
