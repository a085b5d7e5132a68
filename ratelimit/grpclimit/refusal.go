package grpclimit

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// refusal is a status with what belongs into the trailer.
type refusal struct {
	status   *status.Status
	pushback string // none if empty
}

// pushback is the trailer of gRFC A6: milliseconds, or a negative number for never.
type pushback = metadata.MD

const pushbackKey = "grpc-retry-pushback-ms"

var noKey = &refusal{status: status.New(codes.InvalidArgument, "the call does not say on whose behalf it is made")}

// limited is the refusal of a limit. Its RetryAfter is negative if no wait helps.
func limited(d ratelimit.Decision) *refusal {
	violation := &errdetails.QuotaFailure_Violation{
		Subject:     d.Name,
		Description: fmt.Sprintf("more than is left of a burst of %d", d.Limit),
	}
	return newRefusal(codes.ResourceExhausted, fmt.Sprintf("limit %q is reached", d.Name), d.RetryAfter,
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{violation}})
}

// newRefusal adds a RetryInfo and the pushback. A negative wait means never.
func newRefusal(code codes.Code, text string, wait time.Duration, details ...protoadapt.MessageV1) *refusal {
	r := &refusal{pushback: "-1"}
	if wait >= 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
		ms := (int64(wait) + int64(time.Millisecond) - 1) / int64(time.Millisecond)
		r.pushback = strconv.FormatInt(max(1, ms), 10)
	}
	plain := status.New(code, text)
	var err error
	if r.status, err = plain.WithDetails(details...); err != nil {
		r.status = plain // the details are messages of our own: they can be written
	}
	return r
}

// tell sets the trailer and returns the error of the call.
func (r *refusal) tell(setTrailer func(pushback) error) error {
	if r.pushback != "" {
		// It fails if the call has ended, and then nobody reads it.
		_ = setTrailer(metadata.Pairs(pushbackKey, r.pushback))
	}
	return r.status.Err()
}
