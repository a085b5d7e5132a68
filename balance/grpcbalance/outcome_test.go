package grpcbalance_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

func TestWhichCodesAreTheBackendsFault(t *testing.T) {
	fault := map[codes.Code]bool{
		codes.Unknown: true, codes.DeadlineExceeded: true, codes.ResourceExhausted: true,
		codes.Internal: true, codes.Unavailable: true, codes.DataLoss: true,
	}
	servers := startAll(t, 1)
	c := dialReady(t, grpcbalance.LeastRequest, servers)
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		before := c.stats()[servers[0].addr].Failures
		servers[0].fail(code)
		_, err := c.call()
		require.Equal(t, code, status.Code(err))
		s := c.stats()[servers[0].addr]
		require.Equal(t, fault[code], s.Failures == before+1, code)
		require.Zero(t, s.InFlight)
	}
}

func TestFailureCodesCanBeChosen(t *testing.T) {
	servers := startAll(t, 1)
	c := dialReady(t, grpcbalance.LeastRequest, servers,
		serviceConfig(grpcbalance.LeastRequest, `{"failureCodes":["UNAVAILABLE","ABORTED"]}`, ""))
	for _, code := range []codes.Code{codes.Internal, codes.Aborted, codes.Unavailable, codes.ResourceExhausted} {
		servers[0].fail(code)
		_, err := c.call()
		require.Equal(t, code, status.Code(err))
	}
	require.EqualValues(t, 2, c.stats()[servers[0].addr].Failures)
}

// failuresOf makes unary RPCs one after the other and counts those that fail.
func (c *client) failuresOf(n int) (failed int) {
	for range n {
		if _, err := c.call(); err != nil {
			failed++
		}
	}
	return failed
}

// A backend that fails at once always looks idle, and must not get more for it.
func TestABackendThatFailsGetsLess(t *testing.T) {
	for _, policy := range []string{grpcbalance.LeastRequest, grpcbalance.LeastLatency} {
		t.Run(policy, func(t *testing.T) {
			servers := startAll(t, 3)
			servers[0].fail(codes.Unavailable)
			c := dialReady(t, policy, servers)
			require.Less(t, c.failuresOf(300), 30, "of 100, its share")
		})
	}
}

func TestABackendThatFailsIsEjected(t *testing.T) {
	servers := startAll(t, 3)
	servers[0].fail(codes.Unavailable)
	ejected := make(chan string, 1)
	stop := registry.Watch(func(target, id string, s balance.State) {
		if s == balance.Ejected {
			ejected <- target + " " + id
		}
	})
	defer stop()
	c := dialReady(t, grpcbalance.RoundRobin, servers)
	require.Equal(t, 5, c.failuresOf(300), "as many as Health.Consecutive says")
	require.Equal(t, c.conn.CanonicalTarget()+" "+servers[0].addr, <-ejected)
	require.Equal(t, balance.Ejected, c.stats()[servers[0].addr].State)
}

func TestABackendMayAskForARest(t *testing.T) {
	const rest = "60000"
	for name, answer := range map[string]func(context.Context) error{
		"pushback": func(ctx context.Context) error {
			if err := grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", rest)); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "busy")
		},
		"detail": func(context.Context) error {
			s, err := status.New(codes.ResourceExhausted, "busy").WithDetails(
				&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)})
			if err != nil {
				return err
			}
			return s.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			servers := startAll(t, 3)
			servers[0].answer(answer)
			c := dialReady(t, grpcbalance.LeastRequest, servers)
			require.Equal(t, 1, c.failuresOf(100))
			require.Equal(t, balance.Ejected, c.stats()[servers[0].addr].State)
		})
	}
}

// Not every pushback is for the balancer: a negative one asks not to retry, and with
// another code it is about the request.
func TestWhatIsNoAskingForARest(t *testing.T) {
	servers := startAll(t, 3)
	for i, answer := range []struct {
		code   codes.Code
		values []string
	}{
		{codes.Unavailable, []string{"-1"}},
		{codes.Unavailable, []string{"soon"}},
		{codes.Unavailable, []string{"60000", "60000"}},
		{codes.NotFound, []string{"60000"}},
		{codes.Internal, []string{"60000"}},
	} {
		servers[0].answer(func(ctx context.Context) error {
			md := metadata.MD{"grpc-retry-pushback-ms": answer.values}
			if err := grpc.SetTrailer(ctx, md); err != nil {
				return err
			}
			return status.Error(answer.code, "as told")
		})
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := dialReady(t, grpcbalance.RoundRobin, servers)
			require.Equal(t, 2, c.failuresOf(6))
			require.Equal(t, balance.Healthy, c.stats()[servers[0].addr].State)
			require.EqualValues(t, 2, c.stats()[servers[0].addr].Picks)
		})
	}
}

// gRPC's retries do not hit the backend that has just failed.
func TestARetryGoesToAnotherBackend(t *testing.T) {
	const retries = `"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.001s",
		"maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]`
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			servers := startAll(t, 4)
			servers[0].fail(codes.Unavailable)
			servers[1].fail(codes.Unavailable)
			c := dialReady(t, policy, servers, serviceConfig(policy, noHealth, retries))
			// Two of four fail, and three attempts: without the exclusion an eighth of the
			// calls would.
			c.calls(200)
			if policy != grpcbalance.LeastLatency { // which may not have tried them
				require.Positive(t, servers[0].served.Load())
				require.Positive(t, servers[1].served.Load())
			}
		})
	}
}

// With one backend there is no other, and a second try is better than none.
func TestARetryGoesToTheSameBackendIfThereIsNoOther(t *testing.T) {
	const retries = `"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":2,"initialBackoff":"0.001s",
		"maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]`
	servers := startAll(t, 1)
	c := dialReady(t, grpcbalance.LeastRequest, servers, serviceConfig(grpcbalance.LeastRequest, noHealth, retries))
	servers[0].answer(func(context.Context) error {
		if servers[0].served.Load() == 1 {
			return status.Error(codes.Unavailable, "once")
		}
		return nil
	})
	c.calls(1)
	require.EqualValues(t, 2, servers[0].served.Load())
}
