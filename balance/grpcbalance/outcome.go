package grpcbalance

import (
	"errors"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/balance"
)

// codeSet is a set of status codes: bit c is code c.
type codeSet uint32

// maxCode is the last of the codes that gRPC has.
const maxCode = codes.Unauthenticated

func setOf(all ...codes.Code) (s codeSet) {
	for _, c := range all {
		s |= 1 << c
	}
	return s
}

// has reports whether the set has c. Whatever no version of gRPC knows is in every
// set that has Unknown.
func (s codeSet) has(c codes.Code) bool {
	if c > maxCode {
		c = codes.Unknown
	}
	return s&(1<<c) != 0
}

// backendsFault are the codes that say something of the backend; the others say
// something of the request.
const backendsFault = codeSet(1<<codes.Unknown | 1<<codes.DeadlineExceeded | 1<<codes.ResourceExhausted |
	1<<codes.Internal | 1<<codes.Unavailable | 1<<codes.DataLoss)

// errIgnored is the outcome of an RPC that says nothing of its backend.
var errIgnored = errors.New("grpcbalance: says nothing of the backend")

// classify judges the errors that judge returns.
func classify(err error) balance.Outcome {
	if err == errIgnored {
		return balance.Ignored
	}
	return balance.Failure
}

// judge returns what the balancer should make of the end of an RPC: nil for a
// success, errIgnored, or an error for a failure.
func judge(info *balancer.DoneInfo, failures codeSet) error {
	if info.Err == nil {
		if !info.BytesSent {
			return errIgnored // the connection was lost before the RPC began
		}
		return nil
	}
	code := status.Code(info.Err)
	switch {
	case code == codes.Canceled:
		return errIgnored
	case !info.BytesSent && code != codes.DeadlineExceeded:
		// It never left: that is for gRPC, which watches the connection. Only an RPC
		// that has waited in vain for the backend to admit another stream tells of it.
		return errIgnored
	case !failures.has(code):
		return nil
	}
	if after := retryAfter(info.Err, code, info.Trailer); after > 0 {
		return &pushback{info.Err, after}
	}
	return info.Err
}

// pushback is an error with which a backend asks for a rest.
type pushback struct {
	error
	after time.Duration
}

func (p *pushback) Unwrap() error             { return p.error }
func (p *pushback) RetryAfter() time.Duration { return p.after }

// retryAfter is for how long a backend asks to be left alone: by the trailer of gRPC's
// retries (gRFC A6), or by the detail of Google's errors. 0 means that it does not.
func retryAfter(err error, code codes.Code, trailer metadata.MD) time.Duration {
	if code != codes.Unavailable && code != codes.ResourceExhausted {
		return 0
	}
	if values := trailer["grpc-retry-pushback-ms"]; len(values) == 1 {
		if ms, err := strconv.ParseInt(values[0], 10, 32); err == nil && ms > 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok && info.GetRetryDelay().IsValid() {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
