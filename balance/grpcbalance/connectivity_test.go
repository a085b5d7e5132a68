package grpcbalance_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/health" // the client's side of health checks
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

// unused is an address at which nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func TestWithAllBackendsDownRPCsFailWithTheReason(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			servers := startAll(t, 2)
			c := dialReady(t, policy, servers)
			for _, s := range servers {
				s.grpc.Stop()
			}
			c.waitForState(connectivity.TransientFailure)
			_, err := c.call()
			require.Equal(t, codes.Unavailable, status.Code(err))
			require.ErrorContains(t, err, "connection refused")
			require.Empty(t, c.stats())
			for _, s := range servers {
				start(t, s.addr)
			}
			c.waitFor(servers...)
			c.calls(5)
		})
	}
}

func TestABackendThatIsDownFailsNothing(t *testing.T) {
	servers := startAll(t, 2)
	c := dial(t, grpcbalance.LeastRequest, nil)
	e := append(endpoints(servers...), resolver.Endpoint{Addresses: []resolver.Address{{Addr: unused(t)}}})
	c.resolver.UpdateState(resolver.State{Endpoints: e})
	// From the first RPC on, which waits for the first connection.
	c.calls(100)
	c.waitFor(servers...)
	c.calls(100)
}

func TestWaitForReadyOutlivesAnOutage(t *testing.T) {
	addr := unused(t)
	c := dial(t, grpcbalance.LeastRequest, nil)
	c.resolver.UpdateState(resolver.State{Endpoints: []resolver.Endpoint{{Addresses: []resolver.Address{{Addr: addr}}}}})
	c.waitForState(connectivity.TransientFailure)

	_, err := c.call()
	require.Equal(t, codes.Unavailable, status.Code(err), "without it, an RPC fails")

	answer := make(chan error, 1)
	go func() {
		_, err := c.callWith(t.Context(), grpc.WaitForReady(true))
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatal("answered by nobody: ", err)
	default:
	}
	start(t, addr)
	require.NoError(t, <-answer)
}

func TestWaitForReadyWaitsForEndpoints(t *testing.T) {
	c := dial(t, grpcbalance.LeastRequest, nil)
	require.Error(t, c.resolver.CC().UpdateState(resolver.State{}))
	c.waitForState(connectivity.TransientFailure)
	answer := make(chan error, 1)
	go func() {
		_, err := c.callWith(t.Context(), grpc.WaitForReady(true))
		answer <- err
	}()
	c.update(startAll(t, 1)...)
	require.NoError(t, <-answer)
}

// A backend that admits no further stream until the deadline is to blame, though
// nothing was sent.
func TestABackendThatAdmitsNoStreamIsAtFault(t *testing.T) {
	s := start(t, "", grpc.MaxConcurrentStreams(1))
	c := dialReady(t, grpcbalance.LeastRequest, []*server{s})
	stream, _ := c.stream(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.callWith(ctx)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Zero(t, s.served.Load())
	require.EqualValues(t, 1, c.stats()[s.addr].Failures)
	require.EqualValues(t, 1, c.stats()[s.addr].InFlight)
	require.NoError(t, stream.CloseSend())
}

func TestACancelledCallerIsNotTheBackendsFault(t *testing.T) {
	servers := startAll(t, 1)
	c := dialReady(t, grpcbalance.LeastLatency, servers)
	servers[0].shut()
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := c.callWith(ctx)
		answer <- err
	}()
	eventually(t, func() bool { return c.stats()[servers[0].addr].InFlight == 1 })
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-answer))
	s := c.stats()[servers[0].addr]
	require.Zero(t, s.InFlight)
	require.Zero(t, s.Failures)
	require.EqualValues(t, 1, s.Picks)
}

func TestACancelledCallerThatWaitsForAConnectionEnds(t *testing.T) {
	c := dial(t, grpcbalance.LeastRequest, nil) // the resolver has not answered
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := c.callWith(ctx, grpc.WaitForReady(true))
		answer <- err
	}()
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-answer))
}

func TestErrorsOfTheResolver(t *testing.T) {
	c := dial(t, grpcbalance.LeastRequest, nil)
	c.resolver.CC().ReportError(errors.New("no such name"))
	_, err := c.call()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, "no such name")

	servers := startAll(t, 2)
	c.update(servers...)
	c.waitFor(servers...)
	c.resolver.CC().ReportError(errors.New("server misbehaving"))
	c.calls(10) // with what was known before
	require.Len(t, c.stats(), 2)

	require.Error(t, c.resolver.CC().UpdateState(resolver.State{}))
	_, err = c.call()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, "no endpoints")
	require.Empty(t, c.stats())

	c.update(servers...)
	c.waitFor(servers...)
	c.calls(10)
}

func TestABackendThatIsNotServingGetsNothing(t *testing.T) {
	const service = "shop"
	servers := startAll(t, 3)
	for _, s := range servers {
		s.health.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	c := dialReady(t, grpcbalance.LeastRequest, servers,
		serviceConfig(grpcbalance.LeastRequest, `{}`, `"healthCheckConfig":{"serviceName":"`+service+`"}`))
	l := c.load(4)
	l.more(100)

	servers[0].health.SetServingStatus(service, healthpb.HealthCheckResponse_NOT_SERVING)
	c.waitFor(servers[1:]...)
	// RPCs that were picked before may still come in: one for each worker.
	l.end()
	served := servers[0].served.Load()
	require.Zero(t, l.failures.Load(), l.err())
	l = c.load(4)
	l.more(200)
	require.Equal(t, served, servers[0].served.Load())

	servers[0].health.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	c.waitFor(servers...)
	eventually(t, func() bool { return servers[0].served.Load() > served })
	l.end()
	require.Zero(t, l.failures.Load(), l.err())
}

// Nothing is left of a channel that is closed: not in gRPC, not here.
func TestNothingIsLeftAfterClose(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			t.Run("used", func(t *testing.T) {
				servers := startAll(t, 3)
				c := dialReady(t, policy, servers)
				c.stream(t.Context()) // is never closed
				l := c.load(4)
				l.more(50)
				servers[0].grpc.Stop()
				l.more(50)
				require.NoError(t, c.conn.Close())
				l.end()
				require.Nil(t, c.channel())
				_, err := c.call()
				require.Equal(t, codes.Canceled, status.Code(err))
			})
			// With the clean-ups of the inner test, the servers are gone too.
			eventually(t, func() bool { return len(goroutines()) == 0 }, "left: %v", goroutines)
		})
	}
}

// gRPC closes the balancer of a channel without RPCs and makes another one for the
// next.
func TestAnIdleChannelWakesUp(t *testing.T) {
	servers := startAll(t, 2)
	c := dialReady(t, grpcbalance.LeastRequest, servers, grpc.WithIdleTimeout(50*time.Millisecond))
	c.calls(5)
	eventually(t, func() bool { return c.channel() == nil })
	c.calls(5)
}
