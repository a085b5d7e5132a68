package grpcbalance_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

// client is a ClientConn with a resolver that the test drives.
type client struct {
	testpb.TestServiceClient
	t        *testing.T
	conn     *grpc.ClientConn
	resolver *manual.Resolver
}

// dial connects to the servers. The options come after those of the policy.
func dial(t *testing.T, policy string, servers []*server, options ...grpc.DialOption) *client {
	t.Helper()
	c := &client{t: t, resolver: manual.NewBuilderWithScheme("test")}
	if servers != nil {
		c.resolver.InitialState(resolver.State{Endpoints: endpoints(servers...)})
	}
	all := append(grpcbalance.DialOptions(policy),
		grpc.WithResolvers(c.resolver),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Do not make tests wait for a second connection attempt.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond,
		}, MinConnectTimeout: patience}),
	)
	var err error
	// The name of the test tells its channel from those of others.
	c.conn, err = grpc.NewClient("test:///"+t.Name(), append(all, options...)...)
	require.NoError(t, err)
	t.Cleanup(func() { c.conn.Close() })
	c.TestServiceClient = testpb.NewTestServiceClient(c.conn)
	c.conn.Connect()
	return c
}

// dialReady is dial, and waits until all servers are connected.
func dialReady(t *testing.T, policy string, servers []*server, options ...grpc.DialOption) *client {
	t.Helper()
	c := dial(t, policy, servers, options...)
	c.waitFor(servers...)
	return c
}

// serviceConfig names a policy and its config, and adds fields if more is not empty.
func serviceConfig(policy, config, more string) grpc.DialOption {
	if more != "" {
		more = "," + more
	}
	return grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"` + policy + `":` + config + `}]` + more + `}`)
}

// noHealth is a config without penalties and ejections, for what they would cloud.
const noHealth = `{"health":{"penalty":"-1s","consecutive":-1,"successRate":-1}}`

func endpoints(servers ...*server) []resolver.Endpoint {
	all := make([]resolver.Endpoint, len(servers))
	for i, s := range servers {
		all[i] = resolver.Endpoint{Addresses: []resolver.Address{{Addr: s.addr}}}
	}
	return all
}

// update resolves to other servers.
func (c *client) update(servers ...*server) {
	c.resolver.UpdateState(resolver.State{Endpoints: endpoints(servers...)})
}

// channel is what the registry knows of the client.
func (c *client) channel() *grpcbalance.Channel {
	for ch := range registry.Channels() {
		if ch.Target() == c.conn.CanonicalTarget() {
			return ch
		}
	}
	return nil
}

// stats are those of the backends that are ready, by ID.
func (c *client) stats() map[string]balance.Stats {
	all := map[string]balance.Stats{}
	if ch := c.channel(); ch != nil {
		for b, s := range ch.Stats() {
			all[b.ID] = s
		}
	}
	return all
}

// waitFor waits until exactly these servers are ready.
func (c *client) waitFor(servers ...*server) {
	c.t.Helper()
	eventually(c.t, func() bool {
		stats := c.stats()
		for _, s := range servers {
			if _, ok := stats[s.addr]; !ok {
				return false
			}
		}
		return len(stats) == len(servers)
	}, "not ready: %d servers", len(servers))
}

func (c *client) waitForState(want connectivity.State) {
	c.t.Helper()
	eventually(c.t, func() bool { return c.conn.GetState() == want }, "not in state %v", want)
}

// call makes a unary RPC and returns the address of who answered.
func (c *client) call() (string, error) {
	return c.callWith(c.t.Context())
}

func (c *client) callWith(ctx context.Context, options ...grpc.CallOption) (string, error) {
	r, err := c.UnaryCall(ctx, &testpb.SimpleRequest{}, options...)
	return r.GetServerId(), err
}

// calls makes unary RPCs one after the other, which must succeed, and counts who
// answered.
func (c *client) calls(n int) map[string]int {
	c.t.Helper()
	by := map[string]int{}
	for range n {
		addr, err := c.call()
		require.NoError(c.t, err)
		by[addr]++
	}
	return by
}

// stream opens a stream, and returns once the server has answered on it.
func (c *client) stream(ctx context.Context) (stream testpb.TestService_FullDuplexCallClient, addr string) {
	c.t.Helper()
	stream, err := c.FullDuplexCall(ctx)
	require.NoError(c.t, err)
	require.NoError(c.t, stream.Send(&testpb.StreamingOutputCallRequest{}))
	r, err := stream.Recv()
	require.NoError(c.t, err)
	return stream, string(r.GetPayload().GetBody())
}

// load is a number of workers that make unary RPCs all the time.
type load struct {
	t        *testing.T
	ok       atomic.Int64
	failures atomic.Int64
	lastErr  atomic.Pointer[error]
	stop     context.CancelFunc
	workers  sync.WaitGroup
}

func (c *client) load(workers int) *load {
	ctx, cancel := context.WithCancel(c.t.Context())
	l := &load{t: c.t, stop: cancel}
	for range workers {
		l.workers.Go(func() {
			for ctx.Err() == nil {
				// Not with ctx: the last RPCs should end as the others do.
				if _, err := c.call(); err != nil {
					l.failures.Add(1)
					l.lastErr.Store(&err)
				} else {
					l.ok.Add(1)
				}
			}
		})
	}
	c.t.Cleanup(l.end)
	return l
}

// more waits for n more RPCs that succeed.
func (l *load) more(n int64) {
	l.t.Helper()
	until := l.ok.Load() + n
	eventually(l.t, func() bool { return l.ok.Load() >= until }, "no progress")
}

func (l *load) end() {
	l.stop()
	l.workers.Wait()
}

// err is the last failure.
func (l *load) err() error {
	if err := l.lastErr.Load(); err != nil {
		return *err
	}
	return nil
}

// goroutines returns the stacks of the goroutines that are in the code of gRPC or in
// ours, but for those of the test itself.
func goroutines() (stacks []string) {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i > 0 && strings.Contains(stack, "google.golang.org/grpc") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// dialPlain is dial without the interceptors.
func dialPlain(t *testing.T, servers []*server, options ...grpc.DialOption) *client {
	t.Helper()
	c := &client{t: t, resolver: manual.NewBuilderWithScheme("test")}
	c.resolver.InitialState(resolver.State{Endpoints: endpoints(servers...)})
	var err error
	c.conn, err = grpc.NewClient("test:///"+t.Name()+"/plain", append(options,
		grpc.WithResolvers(c.resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { c.conn.Close() })
	c.TestServiceClient = testpb.NewTestServiceClient(c.conn)
	c.conn.Connect()
	return c
}
