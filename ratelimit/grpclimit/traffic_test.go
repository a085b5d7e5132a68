package grpclimit_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/grpclimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// kinds is a service with all four kinds of methods, made by hand.
var kinds = grpc.ServiceDesc{
	ServiceName: "kinds.Kinds",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(srv any, ctx context.Context, dec func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
		in := new(emptypb.Empty)
		if err := dec(in); err != nil {
			return nil, err
		}
		return i(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/kinds.Kinds/Unary"}, func(ctx context.Context, _ any) (any, error) {
			return in, behave(ctx)
		})
	}}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Server", ServerStreams: true, Handler: streamed},
		{StreamName: "Client", ClientStreams: true, Handler: streamed},
		{StreamName: "Both", ServerStreams: true, ClientStreams: true, Handler: streamed},
	},
}

var turn atomic.Uint64

// behave is well or not, in turns.
func behave(ctx context.Context) error {
	switch turn.Add(1) % 6 {
	case 0:
		return status.Error(codes.Unavailable, "")
	case 1:
		<-ctx.Done()
		return ctx.Err()
	case 2:
		panic("mine")
	}
	return nil
}

func streamed(_ any, s grpc.ServerStream) error {
	for {
		if err := s.RecvMsg(new(emptypb.Empty)); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if err := behave(s.Context()); err != nil {
		return err
	}
	return s.SendMsg(new(emptypb.Empty))
}

func TestUnderMixedCalls(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 6, Queue: shed.Queue{Max: 4, Target: 100 * time.Millisecond}})
	m := limits(t, keyed(t, ratelimit.Per(150, time.Hour)), grpclimit.Options{Key: grpclimit.Peer})
	s := shedding(t, gate, grpclimit.ShedOptions{})
	var arrived, recovered atomic.Uint64
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
			arrived.Add(1)
			defer func() {
				if v := recover(); v != nil {
					recovered.Add(1)
					err = status.Error(codes.Internal, "")
				}
			}()
			return h(ctx, req)
		}, m.Unary, s.Unary),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			arrived.Add(1)
			defer func() {
				if v := recover(); v != nil {
					recovered.Add(1)
					err = status.Error(codes.Internal, "")
				}
			}()
			return h(srv, ss)
		}, m.Stream, s.Stream),
	)
	server.RegisterService(&kinds, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	p := &grpclimit.Pacer{MaxPause: time.Millisecond}
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(p.Unary), grpc.WithStreamInterceptor(p.Stream))
	require.NoError(t, err)
	var wg sync.WaitGroup
	for g := range 10 {
		wg.Go(func() {
			for i := range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				if (g+i)%3 == 0 {
					time.AfterFunc(3*time.Millisecond, cancel)
				}
				switch kind := (g + i) % 4; kind {
				case 3:
					_ = conn.Invoke(ctx, "/kinds.Kinds/Unary", new(emptypb.Empty), new(emptypb.Empty))
				default:
					stream, err := conn.NewStream(ctx, &kinds.Streams[kind], "/kinds.Kinds/"+kinds.Streams[kind].StreamName)
					if err != nil {
						break
					}
					_ = stream.SendMsg(new(emptypb.Empty))
					_ = stream.CloseSend()
					for stream.RecvMsg(new(emptypb.Empty)) == nil {
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
	require.NoError(t, conn.Close())
	server.GracefulStop()
	require.NoError(t, <-served)
	require.Zero(t, gate.Stats().InFlight)
	a, b := m.Stats(), s.Stats()
	require.Equal(t, arrived.Load(), a.Allowed+a.Refused)
	require.Equal(t, a.Allowed, b.Admitted+b.Refused+b.Gone)
	require.Zero(t, a.Failed+a.Keyless+b.Failed)
	t.Logf("%d arrived, %d panics: %+v %+v", arrived.Load(), recovered.Load(), a, b)
}

// A policy whose limiter panics leaves the others in force.
func TestALimitThatPanicsLeavesTheOthersInForce(t *testing.T) {
	broken, err := ratelimit.NewKeyedBy(func(string) ratelimit.Limit { panic("no such tier") }, ratelimit.KeyedOptions{Capacity: 10})
	require.NoError(t, err)
	m := limits(t, broken, grpclimit.Options{
		Key:  everybody,
		Also: []grpclimit.Policy{{Name: "site", Limiter: keyed(t, ratelimit.Per(1, time.Hour)), Key: everybody}},
	})
	_, err = unary(context.Background(), m, ok)
	require.NoError(t, err)
	_, err = unary(context.Background(), m, ok)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, uint64(2), m.Stats().Failed)
}

// Callers of gRPC look at the code of an error, also of one that was made on their side.
func TestTheErrorsOfThePacerHaveCodes(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	p := &grpclimit.Pacer{Limiter: keyed(t, ratelimit.Per(1, time.Hour))}
	call := func(ctx context.Context) error {
		return p.Unary(ctx, "/s/M", nil, nil, conn,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil })
	}
	require.NoError(t, call(t.Context()))
	soon, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = call(soon)
	require.ErrorIs(t, err, ratelimit.ErrLimited)
	var limited *ratelimit.LimitError
	require.ErrorAs(t, err, &limited)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, limited.RetryAfter, retryInfo(err))

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	err = call(gone)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, codes.Canceled, status.Code(err))

	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	err = call(late)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
}

// A caller that goes away while the gate would have made it wait is let on in Shadow, as
// without the interceptor.
func TestShadowLetsOnWhoGoesAwayInTheQueue(t *testing.T) {
	for mode, code := range map[grpclimit.Mode]codes.Code{grpclimit.Shadow: codes.OK, grpclimit.Enforce: codes.Canceled} {
		waits := gateFunc(func(ctx context.Context, _ shed.Class) (shed.Permit, error) {
			<-ctx.Done()
			return shed.Permit{}, ctx.Err()
		})
		s := shedding(t, waits, grpclimit.ShedOptions{Mode: func(context.Context, grpclimit.Call) grpclimit.Mode { return mode }})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := unary(ctx, s, ok)
		require.Equal(t, code, status.Code(err))
		require.Equal(t, grpclimit.ShedStats{Gone: 1}, s.Stats())
	}
}
