package outbox

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
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

// A Stack is a database that costs nothing: a list of messages that are read once.
type Stack struct {
	*Fake
	rest []Message
}

// NewStack returns a Stack of messages.
func NewStack(msgs []Message) *Stack { return &Stack{Fake: NewFake(1), rest: msgs} }

// DrainStack is Drain on a Stack.
func (o *Outbox) DrainStack(ctx context.Context, s *Stack, p Publisher) (int, error) {
	return o.drain(ctx, s, p)
}

func (s *Stack) mark(context.Context) (reading, error) { return reading{newest: 1 << 40}, nil }

func (s *Stack) advance(_ context.Context, _ dialect.Ack, f dialect.Fetch, _ int) ([]entry, bool, error) {
	n := min(f.Limit, len(s.rest))
	out := make([]entry, n)
	for i := range out {
		out[i] = entry{Message: s.rest[i]}
		out[i].Attempt = 1
	}
	s.rest = s.rest[n:]
	return out, n == f.Limit, nil
}

// WakeAll is what Pause, Resume and Replay do when they have written.
func (o *Outbox) WakeAll() { o.alarms.ring(true) }

// Upkeep is the upkeep of an archive, once.
func Upkeep(ctx context.Context, d Dialect, db *sql.DB, r Retention, keep time.Duration) error {
	_, err := (&sqlStore{sql: d.SQL(), db: db}).upkeep(ctx, r, keep)
	return err
}
