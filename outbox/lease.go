package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The lease makes one drainer at a time responsible. Taking it over makes a new
// epoch, and whatever a drainer writes is refused unless the epoch is still its
// own. So a drainer that slept through its lease (a suspended laptop, a stopped
// process, a long pause) may publish messages again, but cannot acknowledge,
// postpone or bury what another one is working on.

// keep renews the lease three times in its duration until ctx ends. If another
// drainer has it, or if the database could not be reached for as long as it
// lasts, it calls lost.
func (d *drainer) keep(ctx context.Context, epoch int64, lost context.CancelCauseFunc) {
	beat := d.o.Lease / 3
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
		err := d.renew(ctx, epoch, beat)
		switch {
		case err == nil:
			last = start
		case ctx.Err() != nil:
			return
		case errors.Is(err, errFenced):
			lost(err)
			return
		case time.Since(last) >= d.o.Lease:
			lost(fmt.Errorf("outbox: lease ended: renew: %w", err))
			return
		default:
			d.o.Logger.Warn("outbox: renew lease failed", "error", err)
		}
	}
}

func (d *drainer) renew(ctx context.Context, epoch int64, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return d.s.renew(ctx, epoch, d.o.Lease)
}

// release ends the lease, so that another drainer need not wait for its end.
func (d *drainer) release(ctx context.Context, epoch int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.o.Lease)
	defer cancel()
	if err := d.s.release(ctx, epoch); err != nil {
		d.o.Logger.Warn("outbox: release lease failed; others wait for its end", "error", err)
	}
}
