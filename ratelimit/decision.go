package ratelimit

import "time"

// Decision is the answer of Take and its kin: whether the units were granted, and what
// is left. It is a plain value; nothing is allocated for it.
//
// A Decision describes the moment in which it was made. Under concurrency
// others may have taken more by the time it is read.
type Decision struct {
	// Allowed reports that the units were granted and charged. If it is false,
	// nothing was charged.
	Allowed bool

	// Limit is the burst of the limit: the most that can be taken at once.
	Limit int64

	// Remaining is the number of whole units that could be taken now.
	Remaining int64

	// RetryAfter is zero if the units were granted. Otherwise it is the time,
	// rounded up to a nanosecond, after which the same call succeeds if nobody
	// else asks; one nanosecond less is too early. It is negative if no wait
	// helps, because the call asked for a negative number of units or for more
	// than Limit.
	RetryAfter time.Duration

	// ResetAfter is the time, rounded up to a nanosecond, after which all of
	// Limit could be taken at once if nobody else asks.
	ResetAfter time.Duration

	// Name is the name of the limit that decided, if [All] decided and its [Want] was
	// named: of the one that refuses for longest, or has the least left.
	Name string
}

// never is the RetryAfter of a call that no wait will satisfy.
const never time.Duration = -1
