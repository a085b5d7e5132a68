package httplimit

import (
	"context"
	"math"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// SetCost says what a request has really cost, in units of the first policy of the
// middleware with Options.Settle that is nearest to the handler. The last call counts,
// and a call after the handler has returned does not. A cost of more than was estimated
// is a debt that later requests of the key pay.
//
// It reports false, and does nothing, if n is negative or if no middleware around the
// handler waits for it: so a handler may call it whether there is one or not. It costs
// one look-up in the context.
//
// SetCost is safe for concurrent use by multiple goroutines.
func SetCost(ctx context.Context, n int64) bool {
	b, ok := ctx.Value(billKey{}).(*bill)
	if !ok || n < 0 {
		return false
	}
	b.actual.Store(min(n, math.MaxInt64-1) + 1)
	return true
}

type billKey struct{}

// bill is a reservation that waits for its actual cost.
type bill struct {
	reservation ratelimit.Reservation
	actual      atomic.Int64 // plus one; 0 means that nobody said
}

func (b *bill) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, billKey{}, b)
}

func (b *bill) settle() {
	if n := b.actual.Load(); n != 0 {
		b.reservation.Settle(n - 1)
	}
}
