package grpcbalance_test

import (
	"context"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/orca"

	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

func TestAStuckBackendDoesNotHoldUpTheOthers(t *testing.T) {
	servers := startAll(t, 3)
	c := dialReady(t, grpcbalance.LeastRequest, servers)
	servers[0].shut()
	// By turns, all workers would be stuck after some 24 RPCs.
	l := c.load(8)
	l.more(500)
	stuck := servers[0].served.Load()
	require.LessOrEqual(t, stuck, int64(4), "of 8 workers")
	require.Equal(t, stuck, c.stats()[servers[0].addr].InFlight)
	servers[0].open()
	l.end()
	require.Zero(t, l.failures.Load(), l.err())
	require.Zero(t, c.stats()[servers[0].addr].InFlight)
}

func TestLeastLatencyAvoidsTheSlow(t *testing.T) {
	const slow = 300 * time.Millisecond
	servers := startAll(t, 3)
	servers[0].answer(func(ctx context.Context) error {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
		return nil
	})
	// What was learnt fades fast, so that a hiccup of this machine does not stick to one
	// of the fast ones. That of the slow one fades towards the mean of all.
	c := dialReady(t, grpcbalance.LeastLatency, servers, serviceConfig(grpcbalance.LeastLatency, `{"decay":"0.1s"}`, ""))
	// One after the other, so that none is ever under way when one is picked: requests
	// under way alone would give the slow one its third.
	by := c.calls(150)
	require.Less(t, by[servers[0].addr], 25, by)
	require.Greater(t, by[servers[1].addr]+by[servers[2].addr], 125)
}

func TestStreamsCountButTeachNoLatency(t *testing.T) {
	servers := startAll(t, 2)
	c := dialReady(t, grpcbalance.LeastLatency, servers)
	for range 6 {
		stream, _ := c.stream(t.Context())
		t.Cleanup(func() { stream.CloseSend() })
	}
	stream, addr := c.stream(t.Context())
	var inFlight int64
	for _, s := range c.stats() {
		inFlight += s.InFlight
	}
	require.EqualValues(t, 7, inFlight)

	before := c.stats()[addr]
	require.NoError(t, stream.CloseSend())
	_, err := stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	after := c.stats()[addr]
	require.Equal(t, before.InFlight-1, after.InFlight)
	require.Zero(t, after.Latency)
	require.Zero(t, after.Failures)

	c.calls(20)
	var learnt bool
	for _, s := range c.stats() {
		learnt = learnt || s.Latency > 0
	}
	require.True(t, learnt, "unary RPCs do teach it")
}

// Two backends, one of which has all the streams: the unary RPCs go to the other.
func TestStreamsAreLoad(t *testing.T) {
	servers := startAll(t, 2)
	c := dialReady(t, grpcbalance.LeastRequest, servers[:1])
	for range 3 {
		c.stream(t.Context())
	}
	c.update(servers...)
	c.waitFor(servers...)
	require.Equal(t, map[string]int{servers[1].addr: 50}, c.calls(50))
}

// Without the interceptors nobody knows which RPCs are unary.
func TestRPCsThatAreNotMarkedTeachNoLatency(t *testing.T) {
	servers := startAll(t, 2)
	c := dial(t, grpcbalance.LeastLatency, servers)
	c.waitFor(servers...)
	plain := dialPlain(t, servers, serviceConfig(grpcbalance.LeastLatency, `{}`, ""))
	plain.waitFor(servers...)
	c.calls(20)
	plain.calls(20)
	var marked, unmarked time.Duration
	for addr := range c.stats() {
		marked += c.stats()[addr].Latency
		unmarked += plain.stats()[addr].Latency
	}
	require.Positive(t, marked)
	require.Zero(t, unmarked)
}

// Of two candidates that are as busy by the client's count, the one that reports less
// load gets the RPC.
func TestReportsOfLoadAreHeeded(t *testing.T) {
	for _, metric := range []string{"application", "processor"} {
		t.Run(metric, func(t *testing.T) {
			servers := startAll(t, 6)
			for i, s := range servers {
				load := 0.1
				if i == 0 {
					load = 0.9
				}
				s.answer(func(ctx context.Context) error {
					r := orca.CallMetricsRecorderFromContext(ctx)
					if metric == "application" {
						r.SetApplicationUtilization(load)
						r.SetCPUUtilization(1 - load) // says the contrary, and does not matter
					} else {
						r.SetCPUUtilization(load)
					}
					return nil
				})
			}
			c := dialReady(t, grpcbalance.LeastRequest, servers)
			eventually(t, func() bool {
				c.calls(1)
				return !slices.ContainsFunc(servers, func(s *server) bool { return s.served.Load() == 0 })
			}, "without a report, all get RPCs")
			by := c.calls(100)
			require.Zero(t, by[servers[0].addr], by)
		})
	}
}
