package grpclimit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/ratelimit/grpclimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func concurrency(t require.TestingT, o shed.ConcurrencyOptions) *shed.Concurrency {
	c, err := shed.NewConcurrency(o)
	require.NoError(t, err)
	return c
}

func shedding(t require.TestingT, gate grpclimit.Gate, o grpclimit.ShedOptions) *grpclimit.Shed {
	s, err := grpclimit.NewShed(gate, o)
	require.NoError(t, err)
	return s
}

// gateFunc is a gate that does as it is told.
type gateFunc func(context.Context, shed.Class) (shed.Permit, error)

func (f gateFunc) Acquire(ctx context.Context, c shed.Class) (shed.Permit, error) { return f(ctx, c) }

func TestSheddingIsUnavailable(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 1})
	s := shedding(t, gate, grpclimit.ShedOptions{RetryAfter: 3 * time.Second})
	open, release := make(chan bool), make(chan bool)
	c := start(t, &service{watch: func(stream grpc_health_v1.Health_WatchServer) error {
		open <- true
		<-release
		return stream.Send(&grpc_health_v1.HealthCheckResponse{})
	}}, s)
	done := make(chan error)
	go func() { done <- watch(as(t, ""), c) }()
	<-open
	for name, call := range map[string]func(...grpc.CallOption) error{
		"unary":  func(o ...grpc.CallOption) error { return check(as(t, ""), c, o...) },
		"stream": func(o ...grpc.CallOption) error { return watch(as(t, ""), c, o...) },
	} {
		var trailer metadata.MD
		err := call(grpc.Trailer(&trailer))
		require.Equal(t, codes.Unavailable, status.Code(err), name)
		require.GreaterOrEqual(t, retryInfo(err), 3*time.Second, name)
		require.LessOrEqual(t, retryInfo(err), 6*time.Second, name)
		require.Empty(t, subject(err), "it is nobody's quota")
		require.Len(t, trailer.Get("grpc-retry-pushback-ms"), 1, name)
	}
	release <- true
	require.NoError(t, <-done)
	require.Eventually(t, func() bool { return gate.Stats().InFlight == 0 }, 10*time.Second, time.Millisecond)
	require.NoError(t, check(as(t, ""), c))
	require.Equal(t, grpclimit.ShedStats{Admitted: 2, Refused: 2}, s.Stats())
}

func TestACancelledStreamGivesItsPermitBack(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 1})
	returned := make(chan bool)
	c := start(t, &service{watch: func(stream grpc_health_v1.Health_WatchServer) error {
		defer func() { returned <- true }()
		if err := stream.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}}, shedding(t, gate, grpclimit.ShedOptions{}))
	ctx, cancel := context.WithCancel(as(t, ""))
	require.NoError(t, watch(ctx, c))
	require.Equal(t, 1, gate.Stats().InFlight)
	cancel()
	<-returned
	require.Eventually(t, func() bool { return gate.Stats().InFlight == 0 }, 10*time.Second, time.Millisecond)
}

func TestAPanicGivesItsPermitBack(t *testing.T) {
	gate := concurrency(t, shed.ConcurrencyOptions{Limit: 1})
	s := shedding(t, gate, grpclimit.ShedOptions{})
	require.PanicsWithValue(t, "mine", func() {
		_, _ = unary(context.Background(), s, func(context.Context, any) (any, error) { panic("mine") })
	})
	require.PanicsWithValue(t, "mine", func() {
		_ = s.Stream(nil, stream{context.Background()}, &grpc.StreamServerInfo{}, func(any, grpc.ServerStream) error { panic("mine") })
	})
	require.Zero(t, gate.Stats().InFlight)
	require.Zero(t, s.Stats().Failed)
}

// stream is a stream without a network.
type stream struct{ ctx context.Context }

func (s stream) Context() context.Context     { return s.ctx }
func (s stream) SetHeader(metadata.MD) error  { return nil }
func (s stream) SendHeader(metadata.MD) error { return nil }
func (s stream) SetTrailer(metadata.MD)       {}
func (s stream) SendMsg(any) error            { return nil }
func (s stream) RecvMsg(any) error            { return nil }

func TestOutcomes(t *testing.T) {
	for _, tc := range []struct {
		err, ended error
		want       shed.Outcome
	}{
		{nil, nil, shed.Success},
		{status.Error(codes.NotFound, ""), nil, shed.Success},
		{status.Error(codes.Internal, ""), nil, shed.Success},
		{errors.New("plain"), nil, shed.Success},
		{status.Error(codes.Unavailable, ""), nil, shed.Drop},
		{status.Error(codes.DeadlineExceeded, ""), nil, shed.Drop},
		{context.DeadlineExceeded, nil, shed.Drop},
		{nil, context.DeadlineExceeded, shed.Drop},
		{status.Error(codes.ResourceExhausted, ""), nil, shed.Ignore},
		{status.Error(codes.Canceled, ""), nil, shed.Ignore},
		{context.Canceled, nil, shed.Ignore},
		{status.Error(codes.Unavailable, ""), context.Canceled, shed.Ignore},
	} {
		require.Equal(t, tc.want, grpclimit.OutcomeOf(tc.err, tc.ended), "%v", tc)
	}
}

func TestClassesAdmitModesAndErrors(t *testing.T) {
	refused := &shed.Error{Reason: shed.Full, RetryAfter: time.Minute}
	var class shed.Class
	var gateErr error
	gate := gateFunc(func(_ context.Context, c shed.Class) (shed.Permit, error) {
		class = c
		return shed.Permit{}, gateErr
	})
	mode := grpclimit.Enforce
	var shadowed, failed []error
	o := grpclimit.ShedOptions{
		Class: func(_ context.Context, c grpclimit.Call) shed.Class {
			require.Equal(t, "/s/M", c.FullMethod)
			return shed.Critical
		},
		Mode: func(context.Context, grpclimit.Call) grpclimit.Mode { return mode },
		OnShed: func(_ context.Context, _ grpclimit.Call, _ grpclimit.Mode, err error) {
			shadowed = append(shadowed, err)
		},
		OnError: func(_ context.Context, _ grpclimit.Call, err error) { failed = append(failed, err); panic("hook") },
	}
	s := shedding(t, gate, o)
	_, err := unary(context.Background(), s, ok)
	require.NoError(t, err)
	require.Equal(t, shed.Critical, class)

	gateErr = refused
	_, err = unary(context.Background(), s, ok)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.GreaterOrEqual(t, retryInfo(err), time.Minute)
	mode = grpclimit.Shadow
	_, err = unary(context.Background(), s, ok)
	require.NoError(t, err)
	mode = grpclimit.Off
	_, err = unary(context.Background(), s, ok)
	require.NoError(t, err)
	require.Len(t, shadowed, 2)

	mode, gateErr = grpclimit.Enforce, errors.New("broken")
	_, err = unary(context.Background(), s, ok)
	require.NoError(t, err, "a broken gate sheds nobody")
	require.Len(t, failed, 1)

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = unary(ended, s, ok)
	require.Equal(t, codes.Canceled, status.Code(err))
	late, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	_, err = unary(late, s, ok)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, grpclimit.ShedStats{Admitted: 1, Refused: 2, Gone: 1, Shadowed: 1, Off: 1, Failed: 2}, s.Stats())

	alone := shedding(t, nil, grpclimit.ShedOptions{
		Admit:  func(context.Context, grpclimit.Call, shed.Class) error { return refused },
		OnShed: func(context.Context, grpclimit.Call, grpclimit.Mode, error) { panic("hook") },
	})
	_, err = unary(context.Background(), alone, ok)
	require.Equal(t, codes.Unavailable, status.Code(err))

	panics := shedding(t, gateFunc(func(context.Context, shed.Class) (shed.Permit, error) { panic("boom") }), grpclimit.ShedOptions{})
	_, err = unary(context.Background(), panics, ok)
	require.NoError(t, err)
	broken := shedding(t, gate, grpclimit.ShedOptions{Mode: func(context.Context, grpclimit.Call) grpclimit.Mode { panic("boom") }})
	_, err = unary(context.Background(), broken, ok)
	require.NoError(t, err)

	_, err = grpclimit.NewShed(nil, grpclimit.ShedOptions{})
	require.ErrorContains(t, err, "the gate and ShedOptions.Admit are nil")
	_, err = grpclimit.NewShed(gate, grpclimit.ShedOptions{RetryAfter: -1})
	require.ErrorContains(t, err, "ShedOptions.RetryAfter is -1ns")
}

// How long a stream lasts is up to its client, so a gate that learns hears of drops alone.
func TestStreamsTellOnlyOfDrops(t *testing.T) {
	for code, lower := range map[codes.Code]bool{codes.OK: false, codes.Unavailable: true} {
		synctest.Test(t, func(t *testing.T) {
			gate, err := shed.NewAdaptive(shed.AdaptiveOptions{})
			require.NoError(t, err)
			s := shedding(t, gate, grpclimit.ShedOptions{})
			before := gate.Stats().Limit
			last := time.Millisecond
			for range 100 {
				last += last / 20 // as if the server became slower and slower
				var wg sync.WaitGroup
				for range gate.Stats().Limit {
					wg.Go(func() {
						_ = s.Stream(nil, stream{context.Background()}, &grpc.StreamServerInfo{}, func(any, grpc.ServerStream) error {
							time.Sleep(last)
							return status.Error(code, "")
						})
					})
				}
				wg.Wait()
			}
			require.Equal(t, lower, gate.Stats().Limit < before, "%v: %d", code, gate.Stats().Limit)
			require.Zero(t, gate.Stats().InFlight)
		})
	}
}
