package grpclimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/internal/pause"
)

// Pacer are interceptors for polite clients: they keep to a limit of their own before a
// call is made, and stay away as long as a server asks for it, by the RetryInfo of a
// ResourceExhausted or an Unavailable.
//
// Until then calls with the same key wait. One whose context would end before is not
// made at all: it fails at once with a *[PauseError], whose code is ResourceExhausted.
// One whose context ends while it waits fails with the code Canceled or DeadlineExceeded,
// and its error wraps that of the context. Nothing is sent twice. Of a stream, its beginning waits.
//
// The zero value is ready to use. Set the fields before first use and do not change or
// copy the Pacer after it.
//
// A Pacer is safe for concurrent use by multiple goroutines.
type Pacer struct {
	// Key says which calls share a limit and a pause. Nil means those to the same
	// target of [grpc.NewClient].
	Key func(ctx context.Context, target, method string) string

	// Limiter, if set, has the limit that calls with a key keep to. They wait in the
	// order in which they came, and fail at once with an error that wraps a
	// *[ratelimit.LimitError], with the code ResourceExhausted, if their context would end
	// before their turn.
	Limiter *ratelimit.Keyed[string]

	// MaxPause bounds what a server may ask for: a longer wait is cut to it. 0 means
	// one minute; negative means that servers are not heeded.
	MaxPause time.Duration

	pauses pause.Table
}

// PauseError says that a call was not made, because the server had asked not to be called
// until after the end of the call's context. It wraps [ratelimit.ErrLimited].
type PauseError struct {
	// Key is the key of the call, its target if Pacer.Key is nil.
	Key string

	// RetryAfter is how long the pause would have lasted.
	RetryAfter time.Duration
}

// Error names the key and the wait.
func (e *PauseError) Error() string {
	return fmt.Sprintf("grpclimit: %s asked not to be called for another %v", e.Key, e.RetryAfter)
}

// Unwrap returns [ratelimit.ErrLimited].
func (e *PauseError) Unwrap() error { return ratelimit.ErrLimited }

// GRPCStatus returns a status with the code ResourceExhausted and a RetryInfo.
func (e *PauseError) GRPCStatus() *status.Status {
	return newRefusal(codes.ResourceExhausted, e.Error(), e.RetryAfter).status
}

// Unary is a [grpc.UnaryClientInterceptor].
func (p *Pacer) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	key, err := p.wait(ctx, cc, method)
	if err != nil {
		return err
	}
	err = invoker(ctx, method, req, reply, cc, opts...)
	p.heed(key, err)
	return err
}

// Stream is a [grpc.StreamClientInterceptor].
func (p *Pacer) Stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	key, err := p.wait(ctx, cc, method)
	if err != nil {
		return nil, err
	}
	stream, err := streamer(ctx, desc, cc, method, opts...)
	p.heed(key, err)
	if err != nil {
		return nil, err
	}
	return &pacedStream{stream, p, key}, nil
}

// pacedStream is a stream whose refusal arrives with what is received.
type pacedStream struct {
	grpc.ClientStream
	pacer *Pacer
	key   string
}

func (s *pacedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.pacer.heed(s.key, err)
	return err
}

func (p *Pacer) wait(ctx context.Context, cc *grpc.ClientConn, method string) (key string, err error) {
	key = cc.Target()
	if p.Key != nil {
		key = p.Key(ctx, key, method)
	}
	late, err := p.pauses.Wait(ctx, p.Limiter, key)
	if late > 0 {
		return key, &PauseError{key, late}
	}
	return key, withStatus(err)
}

// withStatus gives an error of this side a code, which callers of gRPC look for.
func withStatus(err error) error {
	if err == nil {
		return nil
	}
	if limited, ok := errors.AsType[*ratelimit.LimitError](err); ok {
		return &statusError{err, newRefusal(codes.ResourceExhausted, err.Error(), limited.RetryAfter).status}
	}
	return &statusError{err, status.FromContextError(err)}
}

// statusError is an error with a status.
type statusError struct {
	error
	status *status.Status
}

func (e *statusError) Unwrap() error              { return e.error }
func (e *statusError) GRPCStatus() *status.Status { return e.status }

// heed begins a pause if the server asks for one.
func (p *Pacer) heed(key string, err error) {
	if err == nil || p.MaxPause < 0 {
		return
	}
	s := status.Convert(err)
	if s.Code() != codes.ResourceExhausted && s.Code() != codes.Unavailable {
		return
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok && info.GetRetryDelay().CheckValid() == nil {
			p.pauses.Until(key, time.Now(), info.GetRetryDelay().AsDuration(), p.MaxPause)
		}
	}
}
