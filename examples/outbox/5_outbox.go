package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// withOutbox adds the event to the outbox in the transaction of the change, and
// has two processes that drain. A service needs no more than open and commit, and
// calls Run instead of what is in claim and publish: those make a drainer stop
// where the script wants it.
type withOutbox struct {
	idle
	*shop
	box      *outbox.Outbox
	doomed   *outbox.Outbox // the same with a short lease
	drainers [drainers]*drainer
	dead     bool // a drainer died, and its lease has not ended yet
}

func (*withOutbox) name() string { return "outbox" }
func (*withOutbox) lesson() string {
	return "What commits is delivered, in order. A drainer that dies repeats the few that it had not written down yet."
}

// doomedLease is the lease of drainers that the script will kill, because it waits
// for the end of their leases. All others have that of the zero Options.
const doomedLease = 300 * time.Millisecond

func (w *withOutbox) open(ctx context.Context, s *shop) (err error) {
	w.shop = s
	if w.box, err = outbox.New(sqlite.Dialect{}, outbox.Options{}); err != nil {
		return err
	}
	if w.doomed, err = outbox.New(sqlite.Dialect{}, outbox.Options{Lease: doomedLease}); err != nil {
		return err
	}
	for i := range w.drainers {
		if w.drainers[i], err = newDrainer(s); err != nil {
			return err
		}
	}
	return w.box.Migrate(ctx, s.db)
}

func (w *withOutbox) commit(ctx context.Context, r request, crash bool) error {
	_, err := w.change(ctx, r, func(tx *sql.Tx, e event) error {
		return w.box.Add(ctx, tx, outbox.Message{Topic: "orders", Key: fmt.Sprint("order/", e.Order), Payload: []byte(e.String())})
	})
	if err == nil && !crash {
		w.box.Wake()
	}
	return err
}

// claim starts a drainer and returns when it has events in its hands, or has none
// to deliver, or stands by because the other one is at work.
func (w *withOutbox) claim(ctx context.Context, i int, doomed bool) error {
	d, box := w.drainers[i], w.box
	if doomed {
		box = w.doomed
	}
	if d.atWork {
		return nil
	}
	for {
		d.inHand = false
		go func() {
			_, err := box.Drain(ctx, d.db, d)
			d.ended <- err
		}()
		select {
		case <-d.arrived:
			d.atWork, w.dead = true, false
			return nil
		case err := <-d.ended:
			if !errors.Is(err, outbox.ErrLeased) {
				w.dead = false
				return err
			}
		}
		if !w.dead {
			return nil
		}
		select { // the dead one counts as alive until its lease ends
		case <-time.After(doomedLease / 20):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *withOutbox) publish(ctx context.Context, i int, crash bool) error {
	d := w.drainers[i]
	if !d.atWork {
		return nil
	}
	var err error
	select {
	case d.proceed <- crash:
		err = <-d.ended
	case err = <-d.ended: // it slept through its lease, on a machine that stood still
	}
	d.atWork = false
	switch {
	case !d.crashed && errors.Is(err, outbox.ErrLeased): // and the other one has taken over
		return nil
	case !d.crashed:
		return err
	case err == nil:
		return errors.New("a drainer without a database went on as if nothing were")
	}
	w.dead = true
	w.drainers[i], err = newDrainer(w.shop)
	return err
}

func (w *withOutbox) close() (err error) {
	for _, d := range w.drainers {
		if d != nil {
			err = errors.Join(err, d.db.Close())
		}
	}
	return err
}

// A drainer is a process with a connection of its own.
type drainer struct {
	*shop
	db      *sql.DB
	atWork  bool
	arrived chan struct{} // it has its first batch
	proceed chan bool     // it may publish, and then crash or not
	ended   chan error
	inHand  bool // it had its first batch
	crashed bool // and does nothing any more
}

func newDrainer(s *shop) (*drainer, error) {
	db, err := openDB(s.path)
	return &drainer{shop: s, db: db, arrived: make(chan struct{}), proceed: make(chan bool), ended: make(chan error, 1)}, err
}

// Publish gives a batch to the broker. The first one of a Drain waits until the
// script wants it.
func (d *drainer) Publish(ctx context.Context, batch []outbox.Message) []error {
	errs := make([]error, len(batch))
	crash, err := d.wait(ctx)
	for i, m := range batch {
		if d.crashed || crash && i == beforeCrash {
			err = errCrash
		}
		if errs[i] = err; err == nil {
			errs[i] = d.deliver(m)
		}
	}
	if crash {
		d.crashed = true
		_ = d.db.Close() // so nothing of this is ever written down
	}
	return errs
}

func (d *drainer) wait(ctx context.Context) (crash bool, err error) {
	if d.inHand {
		return false, nil
	}
	d.inHand = true
	select {
	case d.arrived <- struct{}{}:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	select {
	case crash = <-d.proceed:
		return crash, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

func (d *drainer) deliver(m outbox.Message) error {
	e, err := parseEvent(string(m.Payload))
	if err == nil {
		d.broker.take(e)
	}
	return err
}
