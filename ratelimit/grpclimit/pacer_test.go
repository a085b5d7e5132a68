package grpclimit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/grpclimit"
)

func refusing(code codes.Code, wait time.Duration) error {
	s, err := status.New(code, "no").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func TestServersAreHeeded(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	for _, tc := range []struct {
		why  string
		err  error
		max  time.Duration
		want time.Duration
	}{
		{"a limit", refusing(codes.ResourceExhausted, 7*time.Second), 0, 7 * time.Second},
		{"shedding", refusing(codes.Unavailable, 1500*time.Millisecond), 0, 1500 * time.Millisecond},
		{"another code", refusing(codes.Internal, 7*time.Second), 0, 0},
		{"no info", status.Error(codes.Unavailable, ""), 0, 0},
		{"a negative wait", refusing(codes.Unavailable, -time.Second), 0, 0},
		{"cut", refusing(codes.Unavailable, time.Hour), 0, time.Minute},
		{"cut to what is allowed", refusing(codes.Unavailable, time.Hour), time.Second, time.Second},
		{"not heeded", refusing(codes.Unavailable, time.Hour), -1, 0},
	} {
		for _, streams := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := &grpclimit.Pacer{MaxPause: tc.max, Key: func(_ context.Context, target, method string) string { return target + method }}
				answer := tc.err
				call := func(method string) error {
					if streams {
						_, err := p.Stream(t.Context(), &grpc.StreamDesc{}, conn, method,
							func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
								return nil, answer
							})
						return err
					}
					return p.Unary(t.Context(), method, nil, nil, conn,
						func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return answer })
				}
				begin := time.Now()
				require.Equal(t, tc.err, call("/s/M"))
				answer = nil
				require.NoError(t, call("/s/N"))
				require.Zero(t, time.Since(begin), "another key")
				require.NoError(t, call("/s/M"))
				require.Equal(t, tc.want, time.Since(begin), tc.why)
			})
		}
	}
}

func TestThePacerAgainstAServer(t *testing.T) {
	for name, ask := range map[string]func(context.Context, grpc_health_v1.HealthClient) error{
		"unary":  func(ctx context.Context, c grpc_health_v1.HealthClient) error { return check(ctx, c) },
		"stream": func(ctx context.Context, c grpc_health_v1.HealthClient) error { return watch(ctx, c) },
	} {
		t.Run(name, func(t *testing.T) { pacedAgainstAServer(t, ask) })
	}
}

func pacedAgainstAServer(t *testing.T, ask func(context.Context, grpc_health_v1.HealthClient) error) {
	p := &grpclimit.Pacer{}
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), grpclimit.Options{Key: everybody})
	c := start(t, &service{}, m, grpc.WithUnaryInterceptor(p.Unary), grpc.WithStreamInterceptor(p.Stream))
	require.NoError(t, ask(as(t, ""), c))
	require.Equal(t, codes.ResourceExhausted, status.Code(ask(as(t, ""), c)))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, err := range []error{check(ctx, c), watch(ctx, c)} {
		var pause *grpclimit.PauseError
		require.ErrorAs(t, err, &pause)
		require.ErrorIs(t, err, ratelimit.ErrLimited)
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.Equal(t, pause.RetryAfter, retryInfo(err))
		require.Contains(t, err.Error(), "asked not to be called for another")
	}
	require.Equal(t, uint64(1), m.Stats().Refused, "it was not asked again")
}

func TestCallsKeepToTheLimitOfTheirKey(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	synctest.Test(t, func(t *testing.T) {
		p := &grpclimit.Pacer{Limiter: keyed(t, ratelimit.Per(1, time.Second))}
		begin := time.Now()
		call := func(ctx context.Context) error {
			return p.Unary(ctx, "/s/M", nil, nil, conn,
				func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil })
		}
		for i := range 3 {
			require.NoError(t, call(t.Context()))
			require.Equal(t, time.Duration(i)*time.Second, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, call(ctx), ratelimit.ErrLimited)
	})
}
