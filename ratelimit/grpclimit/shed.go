package grpclimit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Gate limits how much is in progress. A [shed.Concurrency] and a [shed.Adaptive] are
// gates.
type Gate interface {
	// Acquire lets a call in, at once or after a wait, or refuses it with an error that
	// wraps [shed.ErrShed].
	Acquire(ctx context.Context, c shed.Class) (shed.Permit, error)
}

// ShedOptions configure [NewShed]. The zero value is ready to use with a gate.
type ShedOptions struct {
	// Admit, if set, is asked before the gate, and refuses with an error that wraps
	// [shed.ErrShed], as Admit of a [shed.Shedder] does.
	Admit func(context.Context, Call, shed.Class) error

	// Class says how much a call matters: nil means that all are [shed.Default].
	Class func(context.Context, Call) shed.Class

	// RetryAfter is the wait that a refusal names when the gate names none. Zero means
	// one second.
	RetryAfter time.Duration

	// Mode is asked for each call, as in [Options]. In Shadow a call that the gate
	// refuses goes on without a permit; one for which the gate has a queue still waits.
	Mode func(context.Context, Call) Mode

	// OnShed, if set, is called with each refusal, in Shadow too.
	OnShed func(context.Context, Call, Mode, error)

	// OnError, if set, is called when the interceptor itself failed, with a *PanicError
	// or with an error of the gate that is neither a refusal nor the end of the call's
	// context. The call is let through.
	OnError func(context.Context, Call, error)
}

// Shed are interceptors that refuse calls with Unavailable when the server has too much
// to do, whoever asks. Make them with [NewShed].
//
// A call holds a permit of the gate until its handler returns, or panics. The outcome is
// told to the gate: Drop, when the code is Unavailable or DeadlineExceeded or the
// deadline has passed; Ignore, when the caller went away, the handler panicked, the code
// is ResourceExhausted, or the call is a stream that was not dropped; Success otherwise.
//
// The RetryInfo of a refusal lies at random between the wait that the gate names and
// twice that, so that those who were refused together do not come back together.
//
// A Shed is safe for concurrent use by multiple goroutines.
type Shed struct {
	gate Gate
	o    ShedOptions

	admitted, refused, gone, shadowed, off, failed atomic.Uint64
}

// NewShed returns interceptors for a gate. The gate may be nil if there is an Admit.
// Returns an error that names the option when both are nil, or RetryAfter is negative.
func NewShed(gate Gate, o ShedOptions) (*Shed, error) {
	if gate == nil && o.Admit == nil {
		return nil, errors.New("grpclimit: the gate and ShedOptions.Admit are nil, expected one of them")
	}
	if o.RetryAfter < 0 {
		return nil, fmt.Errorf("grpclimit: ShedOptions.RetryAfter is %v, expected 0 or more", o.RetryAfter)
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = time.Second
	}
	return &Shed{gate: gate, o: o}, nil
}

// ShedStats is a snapshot of what a [Shed] has done.
type ShedStats struct {
	// Admitted counts the calls that were let in, Refused those that were refused with
	// Unavailable, and Gone those whose caller went away while they waited.
	Admitted, Refused, Gone uint64

	// Shadowed counts the refusals of the mode Shadow, Off what passed by the kill
	// switch.
	Shadowed, Off uint64

	// Failed counts failures of the interceptor itself.
	Failed uint64
}

// Stats returns the counters. They are read one after the other.
func (s *Shed) Stats() ShedStats {
	return ShedStats{
		Admitted: s.admitted.Load(), Refused: s.refused.Load(), Gone: s.gone.Load(),
		Shadowed: s.shadowed.Load(), Off: s.off.Load(), Failed: s.failed.Load(),
	}
}

// Unary is a [grpc.UnaryServerInterceptor].
func (s *Shed) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	permit, refusal := s.enter(ctx, Call{info.FullMethod, req})
	if refusal != nil {
		return nil, refusal.tell(func(md pushback) error { return grpc.SetTrailer(ctx, md) })
	}
	outcome := shed.Ignore // of a panic
	defer func() { permit.Release(outcome) }()
	resp, err = handler(ctx, req)
	outcome = outcomeOf(err, ctx.Err())
	return resp, err
}

// Stream is a [grpc.StreamServerInterceptor].
func (s *Shed) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	permit, refusal := s.enter(stream.Context(), Call{info.FullMethod, nil})
	if refusal != nil {
		return refusal.tell(func(md pushback) error { stream.SetTrailer(md); return nil })
	}
	outcome := shed.Ignore
	defer func() { permit.Release(outcome) }()
	err := handler(srv, stream)
	if outcomeOf(err, stream.Context().Err()) == shed.Drop {
		outcome = shed.Drop
	}
	return err
}

// outcomeOf judges a call by its error and by the end of its context.
func outcomeOf(err, ended error) shed.Outcome {
	code := status.Code(err)
	switch {
	case errors.Is(ended, context.Canceled), errors.Is(err, context.Canceled), code == codes.Canceled:
		return shed.Ignore
	case ended != nil, errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded, code == codes.Unavailable:
		return shed.Drop
	case code == codes.ResourceExhausted:
		return shed.Ignore
	default:
		return shed.Success
	}
}

// enter asks the gate. A nil refusal means that the call may go on; the permit is then
// the zero one if there is none.
func (s *Shed) enter(ctx context.Context, c Call) (shed.Permit, *refusal) {
	mode := s.mode(ctx, c)
	if mode == Off {
		s.off.Add(1)
		return shed.Permit{}, nil
	}
	permit, err := s.acquire(ctx, c)
	switch {
	case err == nil:
		s.admitted.Add(1)
		return permit, nil
	case errors.Is(err, shed.ErrShed):
		return shed.Permit{}, s.refuse(ctx, c, mode, err)
	case errors.Is(ctx.Err(), context.Canceled):
		s.gone.Add(1)
		if mode == Shadow {
			return shed.Permit{}, nil
		}
		return shed.Permit{}, &refusal{status: status.FromContextError(ctx.Err())}
	case ctx.Err() != nil: // the time ran out in the queue
		return shed.Permit{}, s.refuse(ctx, c, mode, err)
	default:
		s.fail(ctx, c, err)
		return shed.Permit{}, nil
	}
}

// acquire asks Admit and the gate. A panic of theirs is an error.
func (s *Shed) acquire(ctx context.Context, c Call) (p shed.Permit, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	class := shed.Default
	if s.o.Class != nil {
		class = s.o.Class(ctx, c)
	}
	if s.o.Admit != nil {
		if err := s.o.Admit(ctx, c, class); err != nil {
			return p, err
		}
	}
	if s.gate == nil {
		return p, nil
	}
	return s.gate.Acquire(ctx, class)
}

func (s *Shed) refuse(ctx context.Context, c Call, mode Mode, err error) *refusal {
	if s.o.OnShed != nil {
		s.hook(ctx, c, mode, err)
	}
	if mode == Shadow {
		s.shadowed.Add(1)
		return nil
	}
	s.refused.Add(1)
	wait := s.o.RetryAfter
	if refusal, ok := errors.AsType[*shed.Error](err); ok && refusal.RetryAfter > 0 {
		wait = refusal.RetryAfter
	}
	wait = min(wait, 1<<61) // so that twice that is a time
	return newRefusal(codes.Unavailable, "the server is busy", wait+time.Duration(rand.Int64N(int64(wait)+1)))
}

// mode calls ShedOptions.Mode. A switch that is broken is off.
func (s *Shed) mode(ctx context.Context, c Call) (m Mode) {
	if s.o.Mode == nil {
		return Enforce
	}
	defer func() {
		if v := recover(); v != nil {
			m = Off
			s.fail(ctx, c, &PanicError{v, debug.Stack()})
		}
	}()
	return s.o.Mode(ctx, c)
}

// hook calls OnShed.
func (s *Shed) hook(ctx context.Context, c Call, mode Mode, refusal error) {
	defer func() {
		if v := recover(); v != nil {
			s.fail(ctx, c, &PanicError{v, debug.Stack()})
		}
	}()
	s.o.OnShed(ctx, c, mode, refusal)
}

// fail counts and reports a failure of our own.
func (s *Shed) fail(ctx context.Context, c Call, err error) {
	s.failed.Add(1)
	if s.o.OnError == nil {
		return
	}
	defer func() {
		if recover() != nil {
			s.failed.Add(1)
		}
	}()
	s.o.OnError(ctx, c, err)
}
