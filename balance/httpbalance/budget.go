package httpbalance

import (
	"sync/atomic"
	"time"
)

// The budget is that of Finagle's RetryBudget: a fifth of the requests and ten a second
// (finagle.github.io/blog/2016/02/08/retry-budgets). Where Finagle lets credit expire
// after ten seconds, this one keeps a fixed amount: that takes no clock on the way of a
// request, and after a quiet hour no more than that is there to be spent at once.
const (
	requestsPerRetry = 5
	maxCredit        = 100 * requestsPerRetry

	reserveEvery = 100 * time.Millisecond
	reserveBurst = 10
)

// budget limits retries: among any r requests and in any time d there are at most
// r/5 + 100 + d/100ms + 10. The zero budget is ready. It takes no lock; while no
// request fails it is full, and costs each request one atomic load.
type budget struct {
	credit  atomic.Int64 // in fifths of a retry
	reserve atomic.Int64 // when the reserve will be full again, in Unix nanoseconds
}

// deposit counts a request.
func (b *budget) deposit() {
	if b.credit.Load() < maxCredit {
		b.credit.Add(1) // concurrent calls exceed the limit by one each, at most
	}
}

// withdraw takes a retry, if there is one.
func (b *budget) withdraw(now time.Time) bool {
	for {
		c := b.credit.Load()
		if c < requestsPerRetry {
			break
		}
		if b.credit.CompareAndSwap(c, c-requestsPerRetry) {
			return true
		}
	}
	const full = int64(reserveBurst * reserveEvery)
	at := now.UnixNano()
	for {
		until := b.reserve.Load()
		from := until
		if from < at || from > at+full { // full, or the clock was set back
			from = at
		}
		if from+int64(reserveEvery) > at+full {
			return false
		}
		if b.reserve.CompareAndSwap(until, from+int64(reserveEvery)) {
			return true
		}
	}
}

// refund gives back a retry that did not take place.
func (b *budget) refund() { b.credit.Add(requestsPerRetry) }
