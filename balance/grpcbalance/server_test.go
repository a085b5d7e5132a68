package grpcbalance_test

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

// patience bounds waits for what happens soon; no test depends on how soon.
const patience = 30 * time.Second

var registry *grpcbalance.Registry

func TestMain(m *testing.M) {
	registry = grpcbalance.Register()
	os.Exit(m.Run())
}

// eventually waits for a condition.
func eventually(t *testing.T, condition func() bool, msgAndArgs ...any) {
	t.Helper()
	require.Eventually(t, condition, patience, time.Millisecond, msgAndArgs...)
}

// server is a real gRPC server on a random port of the loopback.
type server struct {
	testpb.UnimplementedTestServiceServer
	grpc   *grpc.Server
	health *health.Server
	addr   string

	accepted atomic.Int64 // connections
	served   atomic.Int64 // unary RPCs that came in
	unary    atomic.Pointer[func(context.Context) error]

	mu   sync.Mutex
	gate chan struct{} // unary RPCs wait for it to be closed
}

// counter counts the connections that a server accepts.
type counter struct {
	net.Listener
	accepted *atomic.Int64
}

func (c counter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Add(1)
	}
	return conn, err
}

// start starts a server on addr; empty means a random port.
func start(t *testing.T, addr string, options ...grpc.ServerOption) *server {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	s := &server{
		addr:   l.Addr().String(),
		grpc:   grpc.NewServer(append(options, orca.CallMetricsServerOption(nil))...),
		health: health.NewServer(),
	}
	testpb.RegisterTestServiceServer(s.grpc, s)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(counter{l, &s.accepted}) }()
	t.Cleanup(func() {
		s.open()
		s.grpc.Stop()
		require.NoError(t, <-served)
	})
	return s
}

func startAll(t *testing.T, n int) []*server {
	t.Helper()
	servers := make([]*server, n)
	for i := range servers {
		servers[i] = start(t, "")
	}
	return servers
}

func (s *server) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	s.served.Add(1)
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if f := s.unary.Load(); f != nil {
		if err := (*f)(ctx); err != nil {
			return nil, err
		}
	}
	return &testpb.SimpleResponse{ServerId: s.addr}, nil
}

// FullDuplexCall answers each message until the client closes its side.
func (s *server) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return nil
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(s.addr)}}); err != nil {
			return err
		}
	}
}

// answer sets what unary RPCs do.
func (s *server) answer(f func(context.Context) error) { s.unary.Store(&f) }

func (s *server) fail(c codes.Code) {
	s.answer(func(context.Context) error { return status.Error(c, "as told") })
}

// shut makes unary RPCs wait until open.
func (s *server) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

func (s *server) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}
