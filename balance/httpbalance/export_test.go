package httpbalance

import (
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// RetryAfter is retryAfter.
func RetryAfter(h http.Header, now time.Time) time.Duration { return retryAfter(h, now) }

// ParseLoad is parseLoad.
func ParseLoad(v string) (balance.Load, bool) { return parseLoad(v) }

// Budget is a budget.
type Budget struct{ b budget }

func (b *Budget) Deposit()                    { b.b.deposit() }
func (b *Budget) Withdraw(now time.Time) bool { return b.b.withdraw(now) }
func (b *Budget) Refund()                     { b.b.refund() }
