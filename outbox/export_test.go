package outbox

import (
	"context"
	"math/rand/v2"
	"time"
)

// RunOn and DrainOn are Run and Drain on a database in memory.
func (o *Outbox) RunOn(ctx context.Context, f *Fake, p Publisher) error { return o.run(ctx, f, p) }

func (o *Outbox) DrainOn(ctx context.Context, f *Fake, p Publisher) (int, error) {
	return o.drain(ctx, f, p)
}

// Backoff is the wait after an attempt with a given source of random numbers.
func Backoff(r *rand.Rand, base, limit time.Duration, attempt int) time.Duration {
	return backoff(r.Int64N, base, limit, attempt)
}

// Jitter is the jitter of polling.
var Jitter = jitter

// EncodeHeader, DecodeHeader and Clip are how headers and errors are stored.
var (
	EncodeHeader = encodeHeader
	DecodeHeader = decodeHeader
	Clip         = clip
)

// Verdicts, by name.
const (
	Untouched = untouched
	Acked     = acked
	Held      = held
	Delayed   = delayed
	Failed    = failed
	Dead      = dead
)

// A Decision is a decision on the message of an ID.
type Decision struct {
	ID       int64
	Verdict  verdict
	Attempts int
	Delay    time.Duration
	Reason   string
}

// Deliver decides on messages that are free, blocked (if their ID is in the
// list) or early.
func (o *Outbox) Deliver(ctx context.Context, p Publisher, msgs []Message, blockedIDs, earlyIDs map[int64]bool) []Decision {
	entries := make([]entry, len(msgs))
	for i, m := range msgs {
		entries[i].Message = m
		switch {
		case blockedIDs[m.ID]:
			entries[i].state = blocked
		case earlyIDs[m.ID]:
			entries[i].state = early
		}
	}
	var out []Decision
	for _, d := range o.deliver(ctx, p, entries) {
		out = append(out, Decision{d.ID, d.verdict, d.attempts, d.delay, d.reason})
	}
	return out
}
