package httpbalance

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// StatusError is what a [Transport] tells the balancer of a response whose status says
// that the backend cannot do its work: 429 and all of 500 to 599 except 501 and 505,
// which are about the request and come from a healthy backend too. The caller of the
// Transport gets the response, not this error. To judge statuses differently, look for
// it in [balance.Options].Classify:
//
//	Classify: func(err error) balance.Outcome {
//		var status *httpbalance.StatusError
//		if errors.Is(err, context.Canceled) || errors.As(err, &status) && status.Code == 429 {
//			return balance.Ignored
//		}
//		return balance.Failure
//	},
type StatusError struct {
	// Code is the status, such as 503.
	Code int

	// Pause is for how long the backend asks to be left alone, from the header
	// Retry-After. 0 means that it does not say.
	Pause time.Duration
}

// Error names the status.
func (e *StatusError) Error() string {
	return fmt.Sprintf("httpbalance: the backend answered %d %s", e.Code, http.StatusText(e.Code))
}

// RetryAfter returns Pause; by this method the balancer knows for how long to rest the
// backend.
func (e *StatusError) RetryAfter() time.Duration { return e.Pause }

// outcomeOf returns a [*StatusError] if the status of resp speaks against the backend.
func outcomeOf(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusNotImplemented, code == http.StatusHTTPVersionNotSupported:
		return nil
	case code == http.StatusTooManyRequests, code >= 500 && code <= 599:
		return &StatusError{Code: code, Pause: retryAfter(resp.Header, time.Now())}
	}
	return nil
}

// retryAfter reads the header Retry-After of RFC 9110, section 10.2.3: seconds or a
// date. A date is compared with that of the response, if it has one, so that it does
// not matter how far the two clocks are apart. It returns 0 for what is neither, and
// for a date in the past.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if digits(v) {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil || s > int64(math.MaxInt64/time.Second) {
			return math.MaxInt64
		}
		return time.Duration(s) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(0, at.Sub(now))
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
