package benchmarks

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zeromicro/go-zero/core/logx"
	gozero "github.com/zeromicro/go-zero/zrpc/evenkeelpeer"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/leastrequest"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/connectivity"
	estats "google.golang.org/grpc/experimental/stats"
	"google.golang.org/grpc/resolver"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
)

// grpcConn stands for gRPC: it makes every connection ready at once and keeps the
// picker.
type grpcConn struct {
	balancer.ClientConn // panics if anything else is called

	subs   []*grpcSub
	picker balancer.Picker
}

type grpcSub struct {
	balancer.SubConn
	listen, health func(balancer.SubConnState)
}

func (c *grpcConn) NewSubConn(_ []resolver.Address, o balancer.NewSubConnOptions) (balancer.SubConn, error) {
	s := &grpcSub{listen: o.StateListener}
	c.subs = append(c.subs, s)
	return s, nil
}

func (c *grpcConn) UpdateState(s balancer.State)            { c.picker = s.Picker }
func (c *grpcConn) ResolveNow(resolver.ResolveNowOptions)   {}
func (c *grpcConn) MetricsRecorder() estats.MetricsRecorder { return noStats{} }

type noStats struct{ estats.MetricsRecorder }

func (noStats) RecordInt64Count(*estats.Int64CountHandle, int64, ...string) {}

func (s *grpcSub) Connect()  {}
func (s *grpcSub) Shutdown() {}

func (s *grpcSub) RegisterHealthListener(listen func(balancer.SubConnState)) { s.health = listen }

// grpcPolicy picks by the picker that gRPC's balancer of a policy makes for n backends.
func grpcPolicy(t testing.TB, builder balancer.Builder, n int) ratio.Op {
	require.NotNil(t, builder)
	c := &grpcConn{}
	b := builder.Build(c, balancer.BuildOptions{})
	t.Cleanup(b.Close)
	state := balancer.ClientConnState{}
	for i := range n {
		a := resolver.Address{Addr: fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)}
		state.ResolverState.Addresses = append(state.ResolverState.Addresses, a)
		state.ResolverState.Endpoints = append(state.ResolverState.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{a}})
	}
	if p, ok := builder.(balancer.ConfigParser); ok {
		config, err := p.ParseConfig([]byte("{}"))
		require.NoError(t, err)
		state.BalancerConfig = config
	}
	require.NoError(t, b.UpdateClientConnState(state))
	require.Len(t, c.subs, n)
	for _, s := range c.subs {
		s.listen(balancer.SubConnState{ConnectivityState: connectivity.Connecting})
		s.listen(balancer.SubConnState{ConnectivityState: connectivity.Ready})
		if s.health != nil { // gRPC calls it later, and not within the call that sets it
			s.health(balancer.SubConnState{ConnectivityState: connectivity.Ready})
		}
	}
	info := balancer.PickInfo{Ctx: context.Background()}
	return func(n int) {
		for range n {
			r, err := c.picker.Pick(info)
			if err != nil {
				panic(err)
			}
			if r.Done != nil {
				r.Done(balancer.DoneInfo{})
			}
		}
	}
}

func grpcRoundRobin(t testing.TB, n int) ratio.Op {
	return grpcPolicy(t, balancer.Get(roundrobin.Name), n)
}

func grpcLeastRequest(t testing.TB, n int) ratio.Op {
	return grpcPolicy(t, balancer.Get(leastrequest.Name), n)
}

func goZeroP2C(t testing.TB, n int) ratio.Op {
	logx.Disable() // it logs a line a minute
	return grpcPolicy(t, gozero.Builder(), n)
}
