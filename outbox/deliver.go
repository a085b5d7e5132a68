package outbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
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
	place place
	state state
}

// A verdict says what becomes of an entry.
type verdict uint8

const (
	untouched verdict = iota // stays as it is
	acked                    // is deleted
	held                     // waits for its key
	delayed                  // waits for its DeliverAt
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
}

// deliver publishes what may be published of a batch and returns a decision for
// each entry, in order of ID.
//
// A publisher may send the messages of one call in any order, and some may fail
// where others do not. So no call has two messages of one key: messages go in
// rounds, the first of each key in round one, the second in round two. A key
// whose message did not arrive is in no later round.
func (o *Outbox) deliver(ctx context.Context, p Publisher, entries []entry) []decision {
	slices.SortFunc(entries, func(a, b entry) int { return int(min(max(a.ID-b.ID, -1), 1)) })
	decisions := make([]decision, len(entries))
	for i := range entries {
		e := &entries[i]
		decisions[i] = decision{entry: e, attempts: e.Attempt - 1, reason: e.LastError}
		switch e.state {
		case blocked:
			decisions[i].verdict = held
		case early:
			decisions[i].verdict = delayed
		}
	}
	stopped := make(map[string]verdict) // key, and what becomes of the rest of it
	for _, round := range rounds(entries) {
		if ctx.Err() != nil {
			break
		}
		round = slices.DeleteFunc(round, func(i int) bool {
			v, stop := stopped[entries[i].Key]
			if stop {
				decisions[i].verdict = v
			}
			return stop
		})
		if len(round) == 0 {
			continue
		}
		batch := make([]Message, len(round))
		for j, i := range round {
			batch[j] = entries[i].Message
		}
		errs := publish(ctx, p, batch)
		for j, i := range round {
			d := &decisions[i]
			o.judge(ctx, d, errs[j])
			if d.Key == "" {
				continue
			}
			switch d.verdict {
			case failed:
				stopped[d.Key] = held
			case dead, untouched:
				// The key goes on when the death is written down: before
				// that, a crash would bring the dead one back.
				stopped[d.Key] = untouched
			}
		}
		o.report(decisions, round, errs)
	}
	return decisions
}

// rounds splits the free entries into rounds with at most one message of each
// key, in which the messages of a key keep their order.
func rounds(entries []entry) [][]int {
	var out [][]int
	seen := make(map[string]int, len(entries))
	for i := range entries {
		e := &entries[i]
		if e.state != free {
			continue
		}
		r := 0
		if e.Key != "" {
			r = seen[e.Key]
			seen[e.Key]++
		}
		if r == len(out) {
			out = append(out, nil)
			if r == 0 {
				out[0] = make([]int, 0, len(entries))
			}
		}
		out[r] = append(out[r], i)
	}
	return out
}

// judge makes the decision on a message that was published with result err.
func (o *Outbox) judge(ctx context.Context, d *decision, err error) {
	if err == nil {
		d.verdict = acked
		return
	}
	permanent := isPermanent(err)
	if ctx.Err() != nil && !permanent {
		return // our own doing, most likely
	}
	d.attempts++
	d.reason = clip(err.Error())
	if permanent || o.o.MaxAttempts > 0 && d.attempts >= o.o.MaxAttempts {
		d.verdict = dead
		return
	}
	d.verdict = failed
	if after, ok := errors.AsType[*retryAfterError](err); ok {
		d.delay = after.d
	} else {
		d.delay = backoff(rand.Int64N, o.o.RetryBase, o.o.RetryMax, d.attempts)
	}
}

// report logs what went wrong in a round: the first failure for all, since a
// destination that is down fails them all, and every death.
func (o *Outbox) report(decisions []decision, round []int, errs []error) {
	var first *decision
	failures := 0
	for j, i := range round {
		d := &decisions[i]
		switch d.verdict {
		case failed:
			failures++
			if first == nil {
				first = d
			}
		case dead:
			o.o.Logger.Error("outbox: message is dead", append(attrs(d), "error", errs[j])...)
		}
	}
	if first != nil {
		o.o.Logger.Warn("outbox: publish failed", append(attrs(first), "failed", failures, "of", len(round), "next_try_in", first.delay, "error", first.reason)...)
	}
	for _, err := range errs {
		if p, ok := errors.AsType[*panicError](err); ok {
			o.o.Logger.Error("outbox: publisher panicked", "value", p.value, "stack", string(p.stack))
			return
		}
	}
}

func attrs(d *decision) []any {
	return []any{slog.Int64("id", d.ID), slog.String("topic", d.Topic), slog.String("key", d.Key), slog.Int("attempt", d.attempts)}
}
