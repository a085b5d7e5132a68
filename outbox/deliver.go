package outbox

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// A place is where a message was found. The numbers are the dialects'.
type place uint8

const (
	inReady  place = 0 // outbox_messages
	inDue    place = 1 // outbox_waiting, by a time of its own
	inParked place = 2 // outbox_waiting, by the time of its key
)

// A state says whether a message may be published. The numbers are the dialects'.
type state uint8

const (
	free    state = 0
	blocked state = 1 // its key is parked
	early   state = 2 // its DeliverAt has not come
)

// An entry is a message as it was read. Its Attempt is the coming one.
type entry struct {
	Message
	bucket int
	place  place
	state  state
}

// A verdict says what becomes of an entry.
type verdict uint8

const (
	untouched verdict = iota // stays as it is
	acked                    // was delivered
	held                     // waits for its key
	delayed                  // waits for its DeliverAt
	paused                   // waits, with its key, until its topic is resumed
	failed                   // waits for its next try; its key, if any, is parked
	dead                     // moves to the dead messages
)

// A decision is the verdict on one entry.
type decision struct {
	*entry
	verdict  verdict
	attempts int           // made so far, this one included
	delay    time.Duration // until the next try, if failed
	reason   string        // the last error
	panicked *panicError   // the Publisher did
}

func decide(e *entry, v verdict) decision {
	return decision{entry: e, verdict: v, attempts: e.Attempt - 1, reason: e.LastError}
}

// judge makes the decision on a message that was published, and not accepted if
// there is a diagnosis.
func (o *Outbox) judge(ctx context.Context, e *entry, why *diagnosis) decision {
	if why == nil {
		return decide(e, acked)
	}
	if ctx.Err() != nil && !why.permanent {
		return decide(e, untouched) // our own doing, most likely
	}
	d := decide(e, failed)
	d.attempts++
	d.reason, d.panicked = why.text, why.panicked
	switch {
	case why.permanent || o.o.MaxAttempts > 0 && d.attempts >= o.o.MaxAttempts:
		d.verdict = dead
	case why.delayed:
		d.delay = why.after
	default:
		d.delay = backoff(rand.Int64N, o.o.RetryBase, o.o.RetryMax, d.attempts)
	}
	return d
}

// report logs what went wrong in a call of Publish: the first failure for all,
// since a destination that is down fails them all, and the first panic.
func (o *Outbox) report(decisions []decision) {
	var first *decision
	var panicked *panicError
	failures := 0
	for i := range decisions {
		d := &decisions[i]
		if d.verdict == failed {
			failures++
			if first == nil {
				first = d
			}
		}
		if panicked == nil {
			panicked = d.panicked
		}
	}
	if first != nil {
		o.o.Logger.Warn("outbox: publish failed", append(attrs(first), "failed", failures, "of", len(decisions), "next_try_in", first.delay, "error", first.reason)...)
	}
	if panicked != nil {
		o.o.Logger.Error("outbox: publisher panicked", "value", panicked.text, "stack", string(panicked.stack))
	}
}

// mourn tells about the messages that have become dead.
func (o *Outbox) mourn(decisions []decision) {
	for i := range decisions {
		d := &decisions[i]
		if d.verdict != dead {
			continue
		}
		o.o.Logger.Error("outbox: message is dead", append(attrs(d), "error", d.reason)...)
		if o.o.Trace.Dead != nil {
			m := d.Message
			m.Attempt, m.LastError = d.attempts, d.reason
			o.o.Trace.Dead(m)
		}
	}
}

func attrs(d *decision) []any {
	return []any{slog.Int64("id", d.ID), slog.String("topic", d.Topic), slog.String("key", d.Key), slog.Int("attempt", d.attempts)}
}
