package grpclimit_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/grpclimit"
)

// service is the health service, as something to call: Check is unary, Watch a stream.
type service struct {
	grpc_health_v1.UnimplementedHealthServer
	check func(context.Context) error
	watch func(grpc_health_v1.Health_WatchServer) error
}

func (s *service) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if s.check != nil {
		if err := s.check(ctx); err != nil {
			return nil, err
		}
	}
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func (s *service) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	if s.watch != nil {
		return s.watch(stream)
	}
	return stream.Send(&grpc_health_v1.HealthCheckResponse{})
}

// interceptors are what Limits and Shed have in common.
type interceptors interface {
	Unary(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error)
	Stream(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error
}

// start serves on a loopback port until the test ends, and returns a client.
func start(t *testing.T, s *service, i interceptors, opts ...grpc.DialOption) grpc_health_v1.HealthClient {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnaryInterceptor(i.Unary), grpc.StreamInterceptor(i.Stream))
	grpc_health_v1.RegisterHealthServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	conn, err := grpc.NewClient(listener.Addr().String(), append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

// as is a context with a user, which Metadata("user") reads.
func as(t *testing.T, user string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	if user == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "user", user)
}

// watch opens a stream and reads one message.
func watch(ctx context.Context, c grpc_health_v1.HealthClient, opts ...grpc.CallOption) error {
	stream, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{}, opts...)
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func check(ctx context.Context, c grpc_health_v1.HealthClient, opts ...grpc.CallOption) error {
	_, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, opts...)
	return err
}

// retryInfo and subject are what the details of an error say; -1 and "" if nothing.
func retryInfo(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return -1
}

func subject(err error) string {
	for _, d := range status.Convert(err).Details() {
		if quota, ok := d.(*errdetails.QuotaFailure); ok && len(quota.GetViolations()) == 1 {
			return quota.GetViolations()[0].GetSubject()
		}
	}
	return ""
}

func keyed(t require.TestingT, limit ratelimit.Limit) *ratelimit.Keyed[string] {
	l, err := ratelimit.NewKeyed[string](limit, ratelimit.KeyedOptions{Capacity: 100})
	require.NoError(t, err)
	return l
}

func limits(t require.TestingT, l *ratelimit.Keyed[string], o grpclimit.Options) *grpclimit.Limits {
	m, err := grpclimit.NewLimits(l, o)
	require.NoError(t, err)
	return m
}
