package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// keep renews the lease three times in its duration until ctx ends. If it is
// gone, or if the database could not be reached for as long as it lasts, it
// calls lost.
func (o *Outbox) keep(ctx context.Context, s store, epoch int64, lost context.CancelCauseFunc) {
	beat := o.o.Lease / 3
	last := time.Now()
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		start := time.Now()
		err := o.renew(ctx, s, epoch, beat)
		switch {
		case err == nil:
			last = start
		case ctx.Err() != nil:
			return
		case errors.Is(err, errFenced):
			lost(err)
			return
		case time.Since(last) >= o.o.Lease:
			lost(fmt.Errorf("outbox: lease ended: renew: %w", err))
			return
		default:
			o.o.Logger.Warn("outbox: renew lease failed", "error", err)
		}
	}
}

func (o *Outbox) renew(ctx context.Context, s store, epoch int64, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return s.renew(ctx, epoch, o.o.Lease)
}

// leaveBound is how long a drainer that ends tries to say so. Others need not
// wait for the end of its lease then, but its caller should not wait either.
const leaveBound = time.Second

// leave ends the lease, so that others need not wait for its end.
func (o *Outbox) leave(ctx context.Context, s store, epoch int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(o.o.Lease, leaveBound))
	defer cancel()
	if err := s.leave(ctx, epoch); err != nil {
		o.o.Logger.Warn("outbox: release lease failed; others wait for its end", "error", err)
	}
}
