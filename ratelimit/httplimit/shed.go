package httplimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Gate limits how much is in progress. A [shed.Concurrency] and a [shed.Adaptive] are
// gates.
type Gate interface {
	// Acquire lets a request in, at once or after a wait, or refuses it with an error
	// that wraps [shed.ErrShed].
	Acquire(ctx context.Context, c shed.Class) (shed.Permit, error)
}

// ShedOptions configure [NewShed]. The zero value is ready to use with a gate.
type ShedOptions struct {
	// Admit, if set, is asked before the gate, and refuses with an error that wraps
	// [shed.ErrShed], as Admit of a [shed.Shedder] does:
	//
	//	func(r *http.Request, c shed.Class) error { return shedder.Admit(c, user(r)) }
	Admit func(*http.Request, shed.Class) error

	// Class says how much a request matters: nil means that all are [shed.Default].
	// [ByMethod] is a start.
	Class func(*http.Request) shed.Class

	// RetryAfter is the wait that a refusal names when the gate names none. Zero means
	// one second.
	RetryAfter time.Duration

	// Fallback, if set, answers in place of the 503: with a page that is cheaper to
	// make, or with what the client needs to make it itself, as Kijiji's pages did. It
	// runs without a permit. If it is not cheap, bound it too.
	Fallback http.Handler

	// Mode is asked for each request, as in [Options]. In Shadow a request that the
	// gate refuses goes on without a permit; one for which the gate has a queue still
	// waits in it. A gate that learns sees only what it let in.
	Mode func(*http.Request) Mode

	// OnShed, if set, is called with each refusal, in Shadow too. It runs before the
	// answer.
	OnShed func(*http.Request, Mode, error)

	// OnError, if set, is called when the middleware itself failed: with a *PanicError
	// when a function of these options or the gate panicked, or with an error of the
	// gate that is neither a refusal nor the end of the request's context. The request
	// is let through.
	OnError func(*http.Request, error)
}

// ByMethod is a [ShedOptions].Class after Stripe's example: what changes something is
// [shed.Default], and GET, HEAD, OPTIONS and TRACE, which can be asked again, are
// [shed.Sheddable]. Which requests are critical only you know.
func ByMethod(r *http.Request) shed.Class {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "":
		return shed.Sheddable
	default:
		return shed.Default
	}
}

// Shed is a middleware that answers 503 Service Unavailable when the server has too much
// to do, whoever asks: the other half of [Limits], whose 429 says that a client asks too
// much. Make it with [NewShed].
//
// A request holds a permit of the gate until its handler returns, or panics. A handler
// that streams holds it until the stream ends; one that hijacks the connection and
// returns has left. The outcome is told to the gate:
//
//   - Drop, when the status is 503 or 504 or the deadline of the request's context has
//     passed;
//   - Ignore, when the client went away, the handler panicked, flushed or hijacked the
//     connection, or the status is 429: the time that it took says nothing;
//   - Success otherwise.
//
// A refusal is a problem of the type temporary-reduced-capacity of
// draft-ietf-httpapi-ratelimit-headers-10. Its Retry-After lies at random between the
// wait that the gate names and twice that, in whole seconds, so that those who were
// refused at the same moment do not come back at the same moment. It is never 0.
//
// It costs what the gate costs and one allocation, for the ResponseWriter that watches
// the status. That one passes on Flush, Hijack and ReadFrom, and has Unwrap for
// [http.ResponseController]. [http.MaxBytesReader] does not look through it: to close the
// connection of who sends too much, use it around the Shed.
//
// A client that goes away while its request waits in a queue is noticed at once over HTTP/2;
// over HTTP/1.1 net/http notices only when the request's body has been read, or is empty.
//
// A Shed is safe for concurrent use by multiple goroutines.
type Shed struct {
	gate Gate
	o    ShedOptions

	admitted, refused, fellBack, gone, shadowed, off, failed atomic.Uint64
}

// NewShed returns a middleware for a gate. The gate may be nil if there is an Admit: for
// rules that bound nothing. Returns an error that names the option when both are nil, or
// RetryAfter is negative.
func NewShed(gate Gate, o ShedOptions) (*Shed, error) {
	if gate == nil && o.Admit == nil {
		return nil, errors.New("httplimit: the gate and ShedOptions.Admit are nil, expected one of them")
	}
	if o.RetryAfter < 0 {
		return nil, fmt.Errorf("httplimit: ShedOptions.RetryAfter is %v, expected 0 or more", o.RetryAfter)
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = time.Second
	}
	return &Shed{gate: gate, o: o}, nil
}

// ShedStats is a snapshot of what a [Shed] has done.
type ShedStats struct {
	// Admitted counts the requests that were let in.
	Admitted uint64

	// Refused counts those that were answered with 503, FellBack those that the
	// Fallback answered instead. Neither is in the other.
	Refused, FellBack uint64

	// Gone counts those whose client went away while they waited for the gate.
	Gone uint64

	// Shadowed counts the refusals of the mode Shadow, Off what passed by the kill
	// switch.
	Shadowed, Off uint64

	// Failed counts failures of the middleware itself.
	Failed uint64
}

// Stats returns the counters. They are read one after the other.
func (s *Shed) Stats() ShedStats {
	return ShedStats{
		Admitted: s.admitted.Load(), Refused: s.refused.Load(), FellBack: s.fellBack.Load(), Gone: s.gone.Load(),
		Shadowed: s.shadowed.Load(), Off: s.off.Load(), Failed: s.failed.Load(),
	}
}

// Wrap returns the handler that asks the gate, and calls next for what is let in.
func (s *Shed) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, next) })
}

func (s *Shed) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	mode := s.mode(r)
	if mode == Off {
		s.off.Add(1)
		next.ServeHTTP(w, r)
		return
	}
	permit, err := s.acquire(r)
	switch {
	case err == nil:
		s.admitted.Add(1)
		s.run(w, r, next, permit)
	case errors.Is(err, shed.ErrShed):
		s.refuse(w, r, next, mode, err)
	case errors.Is(r.Context().Err(), context.Canceled):
		s.gone.Add(1)
		if mode == Shadow {
			next.ServeHTTP(w, r)
			return
		}
		shedding.write(w) // nobody reads it
	case r.Context().Err() != nil:
		s.refuse(w, r, next, mode, err) // the time ran out in the queue
	default:
		s.fail(r, err)
		next.ServeHTTP(w, r)
	}
}

// acquire asks Admit and the gate. A panic of theirs is an error.
func (s *Shed) acquire(r *http.Request) (p shed.Permit, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	class := shed.Default
	if s.o.Class != nil {
		class = s.o.Class(r)
	}
	if s.o.Admit != nil {
		if err := s.o.Admit(r, class); err != nil {
			return p, err
		}
	}
	if s.gate == nil {
		return p, nil
	}
	return s.gate.Acquire(r.Context(), class)
}

// run calls the handler and gives the permit back.
func (s *Shed) run(w http.ResponseWriter, r *http.Request, next http.Handler, permit shed.Permit) {
	if s.gate == nil {
		next.ServeHTTP(w, r)
		return
	}
	watch := &watcher{ResponseWriter: w}
	outcome := shed.Ignore // of a panic
	defer func() { permit.Release(outcome) }()
	next.ServeHTTP(watch, r)
	outcome = outcomeOf(watch.status, watch.open, r.Context().Err())
}

// outcomeOf judges a request. A status of 0 is that of a handler that wrote nothing.
func outcomeOf(status int, open bool, err error) shed.Outcome {
	switch {
	case errors.Is(err, context.Canceled):
		return shed.Ignore
	case err != nil, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return shed.Drop
	case open, status == http.StatusTooManyRequests:
		return shed.Ignore
	default:
		return shed.Success
	}
}

func (s *Shed) refuse(w http.ResponseWriter, r *http.Request, next http.Handler, mode Mode, err error) {
	if s.o.OnShed != nil {
		s.hook(r, mode, err)
	}
	switch {
	case mode == Shadow:
		s.shadowed.Add(1)
		next.ServeHTTP(w, r)
	case s.o.Fallback != nil:
		s.fellBack.Add(1)
		s.o.Fallback.ServeHTTP(w, r)
	default:
		s.refused.Add(1)
		wait := s.o.RetryAfter
		if refusal, ok := errors.AsType[*shed.Error](err); ok && refusal.RetryAfter > 0 {
			wait = refusal.RetryAfter
		}
		w.Header()["Retry-After"] = []string{strconv.FormatInt(spread(seconds(wait), 1), 10)}
		shedding.write(w)
	}
}

// mode calls ShedOptions.Mode. A switch that is broken is off.
func (s *Shed) mode(r *http.Request) (m Mode) {
	if s.o.Mode == nil {
		return Enforce
	}
	defer func() {
		if v := recover(); v != nil {
			m = Off
			s.fail(r, &PanicError{v, debug.Stack()})
		}
	}()
	if m = s.o.Mode(r); m > Off {
		m = Enforce
	}
	return m
}

// hook calls OnShed.
func (s *Shed) hook(r *http.Request, mode Mode, refusal error) {
	defer func() {
		if v := recover(); v != nil {
			s.fail(r, &PanicError{v, debug.Stack()})
		}
	}()
	s.o.OnShed(r, mode, refusal)
}

// fail counts and reports a failure of our own.
func (s *Shed) fail(r *http.Request, err error) {
	s.failed.Add(1)
	if s.o.OnError == nil {
		return
	}
	defer func() {
		if recover() != nil {
			s.failed.Add(1)
		}
	}()
	s.o.OnError(r, err)
}
